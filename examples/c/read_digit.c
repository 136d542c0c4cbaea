/* Which digit is on an image: 28 x 28 grey bytes on the standard input, a line on the standard output.
 *
 * The pixels are the codes that the network reads (its scale is 1/255, its zero point 0), and the largest code is the
 * largest score, so that nothing here is a float: the network may be compiled with -DDIGITS_NO_FLOAT. */

#include <stdio.h>

#include "digits.h"

static int64_t arena[(DIGITS_ARENA_BYTES + 7) / 8];
static DIGITS_INPUT_0_CODE_TYPE image[DIGITS_INPUT_0_ELEMENTS];
static DIGITS_OUTPUT_0_CODE_TYPE scores[DIGITS_OUTPUT_0_ELEMENTS];

int main(void)
{
    const void *const in[DIGITS_INPUTS] = {image};
    void *const out[DIGITS_OUTPUTS] = {scores};
    if (fread(image, 1, sizeof image, stdin) != sizeof image) {
        fprintf(stderr, "the image must have %d bytes\n", DIGITS_INPUT_0_ELEMENTS);
        return 2;
    }
    if (digits_run_codes(in, out, arena) != 0) {
        return 1;
    }
    int best = 0;
    for (int digit = 0; digit < DIGITS_OUTPUT_0_ELEMENTS; digit++) {
        printf("%d ", scores[digit]);
        best = scores[digit] > scores[best] ? digit : best;
    }
    printf("-> %d\n", best);
    return 0;
}
