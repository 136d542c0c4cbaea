/* Convolutions of images [batch, height, width, channels]. */

struct conv_fields {
    ptrdiff_t batch, in_h, in_w, in_c, out_h, out_w, kernel_h, kernel_w, stride_h, stride_w, dilation_h, dilation_w;
    ptrdiff_t pad_top, pad_left, out_c, groups, y_pitch, y_offset;
    int32_t x_zp, y_zp;
    int64_t lo, hi;
};

/* Weights of a position in the padding, which reads as the zero point. */
static uint32_t padded_sum(const int8_t *w, ptrdiff_t count, int32_t x_zp, uint32_t sum)
{
    for (ptrdiff_t i = 0; i < count; i++) {
        sum += (uint32_t)x_zp * (uint32_t)w[i];
    }
    return sum;
}

/* One row of a kernel, from column `left` of the image's row x on (no row: null); w [kernel_w, channels]. */
static uint32_t kernel_row_X(const struct conv_fields *f, const X_t *x, ptrdiff_t left, const int8_t *w, uint32_t sum)
{
    const ptrdiff_t channels = f->in_c / f->groups;
    if (!x) {
        return padded_sum(w, f->kernel_w * channels, f->x_zp, sum);
    }
    if (f->groups == 1 && f->dilation_w == 1 && left >= 0 && left + f->kernel_w <= f->in_w) {
        return dot_X(x + left * f->in_c, w, f->kernel_w * channels, sum);
    }
    for (ptrdiff_t kx = 0; kx < f->kernel_w; kx++) {
        const ptrdiff_t column = left + kx * f->dilation_w;
        if (column >= 0 && column < f->in_w) {
            sum = dot_X(x + column * f->in_c, w + kx * channels, channels, sum);
        } else {
            sum = padded_sum(w + kx * channels, channels, f->x_zp, sum);
        }
    }
    return sum;
}

/* w [out_c, kernel_h, kernel_w, in_c / groups]; the zero point of x is in the bias. */
static void conv_X_Y(const struct conv_fields *f, const X_t *x, const int8_t *w, const int32_t *bias, const int32_t *m,
                     const int32_t *n, Y_t *y)
{
    const ptrdiff_t channels = f->in_c / f->groups, width = f->out_c / f->groups;
    const ptrdiff_t line = f->kernel_w * channels, pitch = f->y_pitch != 0 ? f->y_pitch : f->out_c;
    for (ptrdiff_t pixel = 0; pixel < f->batch * f->out_h * f->out_w; pixel++) {
        const ptrdiff_t image = pixel / (f->out_h * f->out_w);
        const ptrdiff_t top = pixel / f->out_w % f->out_h * f->stride_h - f->pad_top;
        const ptrdiff_t left = pixel % f->out_w * f->stride_w - f->pad_left;
        for (ptrdiff_t o = 0; o < f->out_c; o++) {
            uint32_t sum = (uint32_t)bias[o];
            for (ptrdiff_t ky = 0; ky < f->kernel_h; ky++) {
                const ptrdiff_t row = top + ky * f->dilation_h;
                const X_t *source = 0;
                if (row >= 0 && row < f->in_h) {
                    source = x + (image * f->in_h + row) * f->in_w * f->in_c + o / width * channels;
                }
                sum = kernel_row_X(f, source, left, w + (o * f->kernel_h + ky) * line, sum);
            }
            y[f->y_offset + pixel * pitch + o] = code_Y(sum, m[o], n[o], f->y_zp, f->lo, f->hi);
        }
    }
}

/* Up to 32 channels of a window: acc[c] += x[c] * w[c] at each position; w [kernel_h, kernel_w, in_c]. */
static void depthwise_window_X(const struct conv_fields *f, const X_t *x, ptrdiff_t top, ptrdiff_t left, const int8_t *w,
                               ptrdiff_t count, uint32_t *acc)
{
    for (ptrdiff_t ky = 0; ky < f->kernel_h; ky++) {
        const ptrdiff_t row = top + ky * f->dilation_h;
        for (ptrdiff_t kx = 0; kx < f->kernel_w; kx++, w += f->in_c) {
            const ptrdiff_t column = left + kx * f->dilation_w;
            if (row < 0 || row >= f->in_h || column < 0 || column >= f->in_w) {
                for (ptrdiff_t c = 0; c < count; c++) {
                    acc[c] += (uint32_t)f->x_zp * (uint32_t)w[c];
                }
                continue;
            }
            const X_t *source = x + (row * f->in_w + column) * f->in_c;
            for (ptrdiff_t c = 0; c < count; c++) {
                acc[c] += (uint32_t)((int32_t)source[c] * w[c]);
            }
        }
    }
}

/* The same where each output channel reads the one input channel of its number. */
static void depthwise_conv_X_Y(const struct conv_fields *f, const X_t *x, const int8_t *w, const int32_t *bias,
                               const int32_t *m, const int32_t *n, Y_t *y)
{
    const ptrdiff_t pitch = f->y_pitch != 0 ? f->y_pitch : f->out_c;
    for (ptrdiff_t pixel = 0; pixel < f->batch * f->out_h * f->out_w; pixel++) {
        const X_t *image = x + pixel / (f->out_h * f->out_w) * f->in_h * f->in_w * f->in_c;
        const ptrdiff_t top = pixel / f->out_w % f->out_h * f->stride_h - f->pad_top;
        const ptrdiff_t left = pixel % f->out_w * f->stride_w - f->pad_left;
        for (ptrdiff_t first = 0; first < f->in_c; first += 32) {
            const ptrdiff_t count = f->in_c - first < 32 ? f->in_c - first : 32;
            uint32_t acc[32];
            for (ptrdiff_t c = 0; c < count; c++) {
                acc[c] = (uint32_t)bias[first + c];
            }
            depthwise_window_X(f, image + first, top, left, w + first, count, acc);
            for (ptrdiff_t c = 0; c < count; c++) {
                const ptrdiff_t o = first + c;
                y[f->y_offset + pixel * pitch + o] = code_Y(acc[c], m[o], n[o], f->y_zp, f->lo, f->hi);
            }
        }
    }
}

struct conv_transpose_fields {
    ptrdiff_t batch, in_h, in_w, in_c, out_h, out_w, kernel_h, kernel_w, stride_h, stride_w, dilation_h, dilation_w;
    ptrdiff_t pad_top, pad_left, out_c, groups;
    int32_t x_zp, y_zp;
    int64_t lo, hi;
};

/* The input position that a kernel position reads for an output position; -1: none. */
static ptrdiff_t transposed_place(ptrdiff_t position, ptrdiff_t stride, ptrdiff_t size)
{
    return position >= 0 && position % stride == 0 && position / stride < size ? position / stride : -1;
}

/* x without its zero point times w, added up. */
static uint32_t centred_dot_X(const X_t *x, const int8_t *w, ptrdiff_t count, int32_t x_zp, uint32_t sum)
{
    for (ptrdiff_t i = 0; i < count; i++) {
        sum += (uint32_t)((x[i] - x_zp) * w[i]);
    }
    return sum;
}

/* w [out_c, kernel_h, kernel_w, in_c / groups]; each output collects the inputs that reach it. */
static void conv_transpose_X_Y(const struct conv_transpose_fields *f, const X_t *x, const int8_t *w, const int32_t *bias,
                               const int32_t *m, const int32_t *n, Y_t *y)
{
    const ptrdiff_t channels = f->in_c / f->groups, width = f->out_c / f->groups, taps = f->kernel_h * f->kernel_w;
    for (ptrdiff_t i = 0; i < f->batch * f->out_h * f->out_w * f->out_c; i++) {
        const ptrdiff_t o = i % f->out_c, pixel = i / f->out_c, image = pixel / (f->out_h * f->out_w);
        const ptrdiff_t down = pixel / f->out_w % f->out_h + f->pad_top, right = pixel % f->out_w + f->pad_left;
        const X_t *group = x + o / width * channels;
        uint32_t sum = (uint32_t)bias[o];
        for (ptrdiff_t tap = 0; tap < taps; tap++) {
            const ptrdiff_t ky = tap / f->kernel_w, kx = tap % f->kernel_w;
            const ptrdiff_t row = transposed_place(down - ky * f->dilation_h, f->stride_h, f->in_h);
            const ptrdiff_t column = transposed_place(right - kx * f->dilation_w, f->stride_w, f->in_w);
            if (row >= 0 && column >= 0) {
                const X_t *source = group + ((image * f->in_h + row) * f->in_w + column) * f->in_c;
                sum = centred_dot_X(source, w + (o * taps + tap) * channels, channels, f->x_zp, sum);
            }
        }
        y[i] = code_Y(sum, m[o], n[o], f->y_zp, f->lo, f->hi);
    }
}
