/* Pools of images [batch, height, width, channels], and reductions of the middle axis of [outer, k, inner]. */

struct max_pool_fields {
    ptrdiff_t batch, in_h, in_w, in_c, out_h, out_w, kernel_h, kernel_w, stride_h, stride_w, dilation_h, dilation_w;
    ptrdiff_t pad_top, pad_left;
};

/* The largest code of each window; padding never wins. */
static void max_pool_X(const struct max_pool_fields *f, const X_t *x, X_t *y)
{
    for (ptrdiff_t pixel = 0; pixel < f->batch * f->out_h * f->out_w; pixel++, y += f->in_c) {
        const X_t *image = x + pixel / (f->out_h * f->out_w) * f->in_h * f->in_w * f->in_c;
        const ptrdiff_t top = pixel / f->out_w % f->out_h * f->stride_h - f->pad_top;
        const ptrdiff_t left = pixel % f->out_w * f->stride_w - f->pad_left;
        for (ptrdiff_t c = 0; c < f->in_c; c++) {
            y[c] = LEAST_X;
        }
        for (ptrdiff_t tap = 0; tap < f->kernel_h * f->kernel_w; tap++) {
            const ptrdiff_t row = top + tap / f->kernel_w * f->dilation_h;
            const ptrdiff_t column = left + tap % f->kernel_w * f->dilation_w;
            if (row < 0 || row >= f->in_h || column < 0 || column >= f->in_w) {
                continue;
            }
            const X_t *source = image + (row * f->in_w + column) * f->in_c;
            for (ptrdiff_t c = 0; c < f->in_c; c++) {
                y[c] = source[c] > y[c] ? source[c] : y[c];
            }
        }
    }
}

struct average_pool_fields {
    ptrdiff_t batch, in_h, in_w, in_c, out_h, out_w, kernel_h, kernel_w, stride_h, stride_w, dilation_h, dilation_w;
    ptrdiff_t pad_top, pad_left, pad_bottom, pad_right, count_include_pad;
    int32_t x_zp, y_zp;
    int64_t lo, hi;
};

/* The sum of one channel of a window, each code less the zero point; `counted` positions divide it. */
static int64_t window_sum_X(const struct average_pool_fields *f, const X_t *x, ptrdiff_t top, ptrdiff_t left,
                            ptrdiff_t *counted)
{
    int64_t sum = 0;
    *counted = 0;
    for (ptrdiff_t tap = 0; tap < f->kernel_h * f->kernel_w; tap++) {
        const ptrdiff_t row = top + tap / f->kernel_w * f->dilation_h;
        const ptrdiff_t column = left + tap % f->kernel_w * f->dilation_w;
        if (row >= 0 && row < f->in_h && column >= 0 && column < f->in_w) {
            sum += x[(row * f->in_w + column) * f->in_c] - f->x_zp;
            *counted += 1;
        } else if (f->count_include_pad && row < f->in_h + f->pad_bottom && column < f->in_w + f->pad_right) {
            *counted += 1;
        }
    }
    return sum;
}

/* m, n [kernel_h * kernel_w], by the number of positions that count. */
static void average_pool_X_Y(const struct average_pool_fields *f, const X_t *x, const int32_t *m, const int32_t *n, Y_t *y)
{
    for (ptrdiff_t pixel = 0; pixel < f->batch * f->out_h * f->out_w; pixel++) {
        const X_t *image = x + pixel / (f->out_h * f->out_w) * f->in_h * f->in_w * f->in_c;
        const ptrdiff_t top = pixel / f->out_w % f->out_h * f->stride_h - f->pad_top;
        const ptrdiff_t left = pixel % f->out_w * f->stride_w - f->pad_left;
        for (ptrdiff_t c = 0; c < f->in_c; c++) {
            ptrdiff_t counted;
            const int64_t sum = window_sum_X(f, image + c, top, left, &counted);
            const ptrdiff_t entry = counted > 1 ? counted - 1 : 0;
            const int64_t value = rounding_shift(mul64(sum, m[entry]), n[entry]);
            *y++ = store_Y(clamp(add64(value, f->y_zp), f->lo, f->hi));
        }
    }
}

struct reduce_fields {
    ptrdiff_t outer, k, inner;
    int32_t x_zp;
    int64_t m;
    int32_t n, divide, y_zp;
    int64_t lo, hi;
};

/* The code of a sum or mean, from the sum of raw codes. */
static int64_t reduced_code(const struct reduce_fields *f, int64_t total)
{
    const int64_t scaled = mul64(sub64(total, (int64_t)f->k * f->x_zp), f->m);
    if (f->divide) {
        const int64_t denominator = mul64(f->k, INT64_C(1) << f->n);
        const int64_t mean = floor_divide(add64(mul64(2, scaled), denominator), mul64(2, denominator));
        return clamp(add64(mean, f->y_zp), f->lo, f->hi);
    }
    return clamp(add64(rounding_shift(scaled, f->n), f->y_zp), f->lo, f->hi);
}

static void reduce_sum_X_Y(const struct reduce_fields *f, const X_t *x, Y_t *y)
{
    for (ptrdiff_t i = 0; i < f->outer * f->inner; i++) {
        const X_t *line = x + i / f->inner * f->k * f->inner + i % f->inner;
        int64_t total = 0;
        for (ptrdiff_t j = 0; j < f->k; j++) {
            total = add64(total, line[j * f->inner]);
        }
        y[i] = store_Y(reduced_code(f, total));
    }
}

static void reduce_K_X_Y(const struct reduce_fields *f, const X_t *x, Y_t *y)
{
    for (ptrdiff_t i = 0; i < f->outer * f->inner; i++) {
        const X_t *line = x + i / f->inner * f->k * f->inner + i % f->inner;
        int64_t best = line[0];
        for (ptrdiff_t j = 1; j < f->k; j++) {
            best = pick_K(best, line[j * f->inner]);
        }
        y[i] = store_Y(best);
    }
}

struct argmax_fields {
    ptrdiff_t outer, k, inner, select_last;
};

static void argmax_X(const struct argmax_fields *f, const X_t *x, int64_t *y)
{
    for (ptrdiff_t i = 0; i < f->outer * f->inner; i++) {
        const X_t *line = x + i / f->inner * f->k * f->inner + i % f->inner;
        ptrdiff_t best = 0;
        for (ptrdiff_t j = 1; j < f->k; j++) {
            const int is_equal = line[j * f->inner] == line[best * f->inner];
            if (line[j * f->inner] > line[best * f->inner] || (f->select_last && is_equal)) {
                best = j;
            }
        }
        y[i] = best;
    }
}

struct topk_fields {
    ptrdiff_t outer, k, inner, count, smallest;
};

/* Whether element i of a line stands before element j in the result. */
static int comes_first_X(const struct topk_fields *f, const X_t *line, int64_t i, int64_t j)
{
    const X_t a = line[(ptrdiff_t)i * f->inner], b = line[(ptrdiff_t)j * f->inner];
    if (a == b) {
        return i < j;
    }
    return f->smallest ? a < b : a > b;
}

/* Lets an entry of a heap sink, whose root is the entry that comes last. */
static void sift_X(const struct topk_fields *f, const X_t *line, int64_t *heap, ptrdiff_t place, ptrdiff_t size)
{
    const int64_t item = heap[place];
    ptrdiff_t child = 2 * place + 1;
    while (child < size) {
        child += child + 1 < size && comes_first_X(f, line, heap[child], heap[child + 1]);
        if (!comes_first_X(f, line, item, heap[child])) {
            break;
        }
        heap[place] = heap[child];
        place = child;
        child = 2 * place + 1;
    }
    heap[place] = item;
}

/* The elements of a line that come first, in their order. */
static void select_X(const struct topk_fields *f, const X_t *line, int64_t *heap)
{
    for (ptrdiff_t i = 0; i < f->count; i++) {
        heap[i] = i;
    }
    for (ptrdiff_t i = f->count / 2; i > 0; i--) {
        sift_X(f, line, heap, i - 1, f->count);
    }
    for (ptrdiff_t j = f->count; j < f->k; j++) {
        if (comes_first_X(f, line, j, heap[0])) {
            heap[0] = j;
            sift_X(f, line, heap, 0, f->count);
        }
    }
    for (ptrdiff_t size = f->count - 1; size > 0; size--) {
        const int64_t last = heap[0];
        heap[0] = heap[size];
        heap[size] = last;
        sift_X(f, line, heap, 0, size);
    }
}

static void topk_X(const struct topk_fields *f, const X_t *x, int64_t *y, void *memory)
{
    int64_t *const heap = memory;
    for (ptrdiff_t i = 0; f->count > 0 && i < f->outer * f->inner; i++) {
        select_X(f, x + i / f->inner * f->k * f->inner + i % f->inner, heap);
        for (ptrdiff_t j = 0; j < f->count; j++) {
            y[(i / f->inner * f->count + j) * f->inner + i % f->inner] = heap[j];
        }
    }
}
