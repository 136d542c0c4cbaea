/* Softmax and layer normalization over the middle axis of [outer, k, inner]. */

struct softmax_fields {
    ptrdiff_t outer, k, inner;
    int64_t m;
    int32_t n, y_zp;
    int64_t lo, hi;
};

/* exp of a distance from the largest code in Q30, the product of an entry of each table. */
static int64_t exponential(int32_t distance, const int32_t *coarse, const int32_t *middle, const int32_t *fine)
{
    const int64_t upper = shift_right((int64_t)coarse[distance / 2048] * middle[distance / 64 % 32], 30);
    return shift_right(upper * fine[distance % 64], 30);
}

static void softmax_X_Y(const struct softmax_fields *f, const X_t *x, const int32_t *coarse, const int32_t *middle,
                        const int32_t *fine, Y_t *y)
{
    for (ptrdiff_t i = 0; i < f->outer * f->inner; i++) {
        const ptrdiff_t start = i / f->inner * f->k * f->inner + i % f->inner;
        const X_t *line = x + start;
        X_t peak = line[0];
        for (ptrdiff_t j = 1; j < f->k; j++) {
            peak = line[j * f->inner] > peak ? line[j * f->inner] : peak;
        }
        int64_t total = 0;
        for (ptrdiff_t j = 0; j < f->k; j++) {
            total += exponential(peak - line[j * f->inner], coarse, middle, fine);
        }
        const int64_t inverse = total > 0 ? (INT64_C(1) << 61) / total : 0;
        for (ptrdiff_t j = 0; j < f->k; j++) {
            const int64_t term = exponential(peak - line[j * f->inner], coarse, middle, fine);
            const int64_t value = requant(shift_right(term * inverse, 30), f->m, f->n);
            y[start + j * f->inner] = store_Y(clamp(value + f->y_zp, f->lo, f->hi));
        }
    }
}

struct layernorm_fields {
    ptrdiff_t outer, k, inner, per_row, channels;
    int64_t epsilon, epsilon_q;
    int32_t n, y_zp;
    int64_t lo, hi;
};

/* Exact floor of the square root, for 2^60 <= value < 2^62: Newton's method from above. */
static int64_t integer_sqrt(int64_t value)
{
    int64_t root = INT64_C(1) << 31, following = (root + value / root) / 2;
    while (following < root) {
        root = following;
        following = (root + value / root) / 2;
    }
    return root;
}

/* Of one line: the sum of its codes, the inverse of their deviation, and by what that is shifted. */
static void moments_X(const struct layernorm_fields *f, const X_t *line, int64_t *total, int64_t *inverse, int32_t *shift)
{
    int64_t sum = 0, squares = 0, epsilon = f->epsilon;
    for (ptrdiff_t j = 0; j < f->k; j++) {
        const int64_t code = line[j * f->inner];
        sum += code;
        squares += code * code;
    }
    if (epsilon == 0) {
        epsilon = shift_right(f->epsilon_q * f->k * f->k, 16);
        epsilon = epsilon > 1 ? epsilon : 1;
    }
    int64_t variance = f->k * squares - sum * sum + epsilon;
    int32_t t = 0;
    while (variance < INT64_C(1) << 60) {
        variance *= 4;
        t++;
    }
    *total = sum;
    *inverse = (INT64_C(1) << 61) / integer_sqrt(variance);
    *shift = 41 - t;
}

/* gamma, beta [k], or with per_row [channels] by line. */
static void layernorm_X_Y(const struct layernorm_fields *f, const X_t *x, const int64_t *gamma, const int64_t *beta, Y_t *y)
{
    for (ptrdiff_t i = 0; i < f->outer * f->inner; i++) {
        const ptrdiff_t start = i / f->inner * f->k * f->inner + i % f->inner;
        int64_t total, inverse;
        int32_t shift;
        moments_X(f, x + start, &total, &inverse, &shift);
        for (ptrdiff_t j = 0; j < f->k; j++) {
            const ptrdiff_t parameter = f->per_row ? i % f->channels : j;
            const int64_t distance = f->k * (int64_t)x[start + j * f->inner] - total;
            const int64_t z = shift_right(distance * inverse, shift);
            const int64_t value = rounding_shift(add64(mul64(z, gamma[parameter]), beta[parameter]), f->n);
            y[start + j * f->inner] = store_Y(clamp(add64(value, f->y_zp), f->lo, f->hi));
        }
    }
}
