/* Codes that move, and linear resizing. */

static void copy_X(const X_t *x, X_t *y, ptrdiff_t count)
{
    for (ptrdiff_t i = 0; i < count; i++) {
        y[i] = x[i];
    }
}

struct move_fields {
    ptrdiff_t d[6], x_s[6], y_s[6], x_offset, y_offset;
};

static void move_X(const struct move_fields *f, const X_t *x, X_t *y)
{
    for (ptrdiff_t outer = 0; outer < outer_runs(f->d); outer++) {
        const X_t *source = x + f->x_offset + place(f->d, f->x_s, 5, outer);
        X_t *target = y + f->y_offset + place(f->d, f->y_s, 5, outer);
        for (ptrdiff_t i = 0; i < f->d[5]; i++) {
            target[i * f->y_s[5]] = source[i * f->x_s[5]];
        }
    }
}

struct fill_fields {
    ptrdiff_t count, y_offset;
    int64_t value;
};

static void fill_Y(const struct fill_fields *f, Y_t *y)
{
    for (ptrdiff_t i = 0; i < f->count; i++) {
        y[f->y_offset + i] = store_Y(f->value);
    }
}

struct gather_fields {
    ptrdiff_t outer, axis, inner, count;
};

/* y[o, i] = x[o, indices[i]]; not 0: an index is out of range. */
static int gather_X_A(const struct gather_fields *f, const X_t *x, const A_t *indices, X_t *y)
{
    for (ptrdiff_t i = 0; i < f->outer * f->count; i++) {
        int64_t index = indices[i % f->count];
        index += index < 0 ? f->axis : 0;
        if (index < 0 || index >= f->axis) {
            return 1;
        }
        copy_X(x + (i / f->count * f->axis + (ptrdiff_t)index) * f->inner, y + i * f->inner, f->inner);
    }
    return 0;
}

struct scatter_fields {
    ptrdiff_t axis, count, inner;
};

/* y = x, then y[indices[i]] = updates[i] in turn; not 0: an index is out of range. */
static int scatter_X_A(const struct scatter_fields *f, const X_t *x, const A_t *indices, const X_t *updates, X_t *y)
{
    copy_X(x, y, f->axis * f->inner);
    for (ptrdiff_t i = 0; i < f->count; i++) {
        int64_t index = indices[i];
        index += index < 0 ? f->axis : 0;
        if (index < 0 || index >= f->axis) {
            return 1;
        }
        copy_X(updates + i * f->inner, y + (ptrdiff_t)index * f->inner, f->inner);
    }
    return 0;
}

struct resize_linear_fields {
    ptrdiff_t batch, in_h, in_w, in_c, out_h, out_w;
    int32_t x_zp;
    int64_t m;
    int32_t n, y_zp;
    int64_t lo, hi;
};

/* Two codes less their zero point, weighed in Q15. */
static int64_t blend_X(const struct resize_linear_fields *f, X_t low, X_t high, int32_t weight)
{
    return (int64_t)(low - f->x_zp) * (32768 - weight) + (int64_t)(high - f->x_zp) * weight;
}

/* Low and high position of every output row and column, and the weight of the high one in Q15. */
static void resize_linear_X_Y(const struct resize_linear_fields *f, const X_t *x, const int32_t *h_low,
                              const int32_t *h_high, const int32_t *h_weight, const int32_t *w_low,
                              const int32_t *w_high, const int32_t *w_weight, Y_t *y)
{
    for (ptrdiff_t pixel = 0; pixel < f->batch * f->out_h * f->out_w; pixel++) {
        const ptrdiff_t oy = pixel / f->out_w % f->out_h, ox = pixel % f->out_w;
        const X_t *image = x + pixel / (f->out_h * f->out_w) * f->in_h * f->in_w * f->in_c;
        const X_t *upper = image + (ptrdiff_t)clamp(h_low[oy], 0, f->in_h - 1) * f->in_w * f->in_c;
        const X_t *lower = image + (ptrdiff_t)clamp(h_high[oy], 0, f->in_h - 1) * f->in_w * f->in_c;
        const ptrdiff_t left = (ptrdiff_t)clamp(w_low[ox], 0, f->in_w - 1) * f->in_c;
        const ptrdiff_t right = (ptrdiff_t)clamp(w_high[ox], 0, f->in_w - 1) * f->in_c;
        for (ptrdiff_t c = 0; c < f->in_c; c++) {
            const int64_t above = blend_X(f, upper[left + c], upper[right + c], w_weight[ox]);
            const int64_t below = blend_X(f, lower[left + c], lower[right + c], w_weight[ox]);
            const int64_t value = add64(mul64(above, 32768 - (int64_t)h_weight[oy]), mul64(below, h_weight[oy]));
            *y++ = store_Y(clamp(add64(rounding_shift(mul64(value, f->m), f->n), f->y_zp), f->lo, f->hi));
        }
    }
}
