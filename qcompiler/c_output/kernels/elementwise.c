/* Elementwise operators of one and of two operands. */

struct binary_fields {
    ptrdiff_t d[6], a_s[6], b_s[6];
    int32_t a_zp, b_zp;
    int64_t a_m, b_m;
    int32_t n, y_zp;
    int64_t lo, hi;
};

static int64_t pick_min(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

static int64_t pick_max(int64_t a, int64_t b)
{
    return a > b ? a : b;
}

/* The codes of two operands, as one code. */
static int64_t combine_add(const struct binary_fields *f, int64_t a, int64_t b)
{
    const int64_t sum = add64(mul64(sub64(a, f->a_zp), f->a_m), mul64(sub64(b, f->b_zp), f->b_m));
    return clamp(add64(rounding_shift(sum, f->n), f->y_zp), f->lo, f->hi);
}

static int64_t combine_mul(const struct binary_fields *f, int64_t a, int64_t b)
{
    const int64_t product = mul64(mul64(sub64(a, f->a_zp), sub64(b, f->b_zp)), f->a_m);
    return clamp(add64(rounding_shift(product, f->n), f->y_zp), f->lo, f->hi);
}

/* Rounded half up; what is divided by 0 saturates. */
static int64_t combine_div(const struct binary_fields *f, int64_t a, int64_t b)
{
    int64_t numerator = mul64(sub64(a, f->a_zp), f->a_m);
    int64_t denominator = mul64(sub64(b, f->b_zp), INT64_C(1) << f->n);
    if (denominator < 0) {
        numerator = sub64(0, numerator);
        denominator = sub64(0, denominator);
    }
    if (denominator == 0) {
        return numerator == 0 ? clamp(f->y_zp, f->lo, f->hi) : numerator > 0 ? f->hi : f->lo;
    }
    const int64_t quotient = floor_divide(add64(mul64(2, numerator), denominator), mul64(2, denominator));
    return clamp(add64(quotient, f->y_zp), f->lo, f->hi);
}

static int64_t combine_K(const struct binary_fields *f, int64_t a, int64_t b)
{
    const int64_t chosen = pick_K(mul64(sub64(a, f->a_zp), f->a_m), mul64(sub64(b, f->b_zp), f->b_m));
    return clamp(add64(rounding_shift(chosen, f->n), f->y_zp), f->lo, f->hi);
}

/* y is dense. */
static void binary_K_A_B_Y(const struct binary_fields *f, const A_t *a, const B_t *b, Y_t *y)
{
    for (ptrdiff_t outer = 0; outer < outer_runs(f->d); outer++) {
        const A_t *left = a + place(f->d, f->a_s, 5, outer);
        const B_t *right = b + place(f->d, f->b_s, 5, outer);
        for (ptrdiff_t i = 0; i < f->d[5]; i++) {
            *y++ = store_Y(combine_K(f, left[i * f->a_s[5]], right[i * f->b_s[5]]));
        }
    }
}

struct table_fields {
    ptrdiff_t count;
};

static void table_u8_Y(const struct table_fields *f, const uint8_t *x, const Y_t *table, Y_t *y)
{
    for (ptrdiff_t i = 0; i < f->count; i++) {
        y[i] = table[x[i]];
    }
}

static void table_i16_Y(const struct table_fields *f, const int16_t *x, const Y_t *table, Y_t *y)
{
    for (ptrdiff_t i = 0; i < f->count; i++) {
        y[i] = table[x[i] + 32768];
    }
}

struct requant_fields {
    ptrdiff_t count;
    int32_t x_zp;
    int64_t m;
    int32_t n, y_zp;
    int64_t lo, hi;
    ptrdiff_t lines, y_pitch, y_offset;
};

/* `lines` of `count` elements, y_pitch apart in y. */
static void requant_X_Y(const struct requant_fields *f, const X_t *x, Y_t *y)
{
    const ptrdiff_t lines = f->lines > 1 ? f->lines : 1, pitch = f->y_pitch != 0 ? f->y_pitch : f->count;
    for (ptrdiff_t line = 0; line < lines; line++) {
        Y_t *target = y + f->y_offset + line * pitch;
        for (ptrdiff_t i = 0; i < f->count; i++) {
            const int64_t value = clamp(*x++, INT32_MIN, INT32_MAX) - f->x_zp;
            target[i] = store_Y(clamp(requant(value, f->m, f->n) + f->y_zp, f->lo, f->hi));
        }
    }
}

struct cast_fields {
    ptrdiff_t count;
};

static void cast_X_Y(const struct cast_fields *f, const X_t *x, Y_t *y)
{
    for (ptrdiff_t i = 0; i < f->count; i++) {
        y[i] = store_Y(x[i]);
    }
}

static void cast_X_bool(const struct cast_fields *f, const X_t *x, uint8_t *y)
{
    for (ptrdiff_t i = 0; i < f->count; i++) {
        y[i] = x[i] != 0;
    }
}

struct piecewise_fields {
    ptrdiff_t count, segments, first, width_bits, fraction;
    int64_t lo, hi;
};

/* Straight lines: `segments` of 2^width_bits codes from `first` on. */
static void piecewise_Y(const struct piecewise_fields *f, const int16_t *x, const int16_t *base, const int16_t *slope,
                        Y_t *y)
{
    const int64_t width = INT64_C(1) << f->width_bits, last = pick_min(f->first + f->segments * width - 1, 32767);
    for (ptrdiff_t i = 0; i < f->count; i++) {
        const int64_t distance = clamp(x[i], f->first, last) - f->first;
        const int64_t value = base[distance / width] * width + slope[distance / width] * (distance % width);
        y[i] = store_Y(clamp(rounding_shift(value, (int32_t)(f->width_bits + f->fraction)), f->lo, f->hi));
    }
}
