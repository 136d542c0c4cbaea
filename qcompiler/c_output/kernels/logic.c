/* Truth values: comparisons, logic, and the choice between two operands. */

struct where_fields {
    ptrdiff_t d[6], c_s[6], a_s[6], b_s[6];
    int32_t a_zp, b_zp;
    int64_t a_m, b_m;
    int32_t n, y_zp;
    int64_t lo, hi;
};

/* The scaled term of a where c is true, else that of b; y is dense. */
static void where_A_B_Y(const struct where_fields *f, const uint8_t *c, const A_t *a, const B_t *b, Y_t *y)
{
    for (ptrdiff_t outer = 0; outer < outer_runs(f->d); outer++) {
        const uint8_t *chosen = c + place(f->d, f->c_s, 5, outer);
        const A_t *left = a + place(f->d, f->a_s, 5, outer);
        const B_t *right = b + place(f->d, f->b_s, 5, outer);
        for (ptrdiff_t i = 0; i < f->d[5]; i++) {
            const int64_t term = chosen[i * f->c_s[5]] != 0 ? mul64(sub64(left[i * f->a_s[5]], f->a_zp), f->a_m)
                                                            : mul64(sub64(right[i * f->b_s[5]], f->b_zp), f->b_m);
            *y++ = store_Y(clamp(add64(rounding_shift(term, f->n), f->y_zp), f->lo, f->hi));
        }
    }
}

struct compare_fields {
    ptrdiff_t d[6], a_s[6], b_s[6];
    int32_t a_zp, b_zp;
    int64_t a_m, b_m;
};

static uint8_t is_less(int64_t a, int64_t b)
{
    return a < b;
}

static uint8_t is_less_equal(int64_t a, int64_t b)
{
    return a <= b;
}

static uint8_t is_greater(int64_t a, int64_t b)
{
    return a > b;
}

static uint8_t is_greater_equal(int64_t a, int64_t b)
{
    return a >= b;
}

static uint8_t is_equal(int64_t a, int64_t b)
{
    return a == b;
}

static void compare_K_A_B(const struct compare_fields *f, const A_t *a, const B_t *b, uint8_t *y)
{
    for (ptrdiff_t outer = 0; outer < outer_runs(f->d); outer++) {
        const A_t *left = a + place(f->d, f->a_s, 5, outer);
        const B_t *right = b + place(f->d, f->b_s, 5, outer);
        for (ptrdiff_t i = 0; i < f->d[5]; i++) {
            const int64_t term = mul64(sub64(left[i * f->a_s[5]], f->a_zp), f->a_m);
            *y++ = is_K(term, mul64(sub64(right[i * f->b_s[5]], f->b_zp), f->b_m));
        }
    }
}

struct logic_fields {
    ptrdiff_t d[6], a_s[6], b_s[6];
};

static uint8_t truth_not(int a, int b)
{
    (void)b;
    return !a;
}

static uint8_t truth_and(int a, int b)
{
    return a && b;
}

static uint8_t truth_or(int a, int b)
{
    return a || b;
}

static uint8_t truth_xor(int a, int b)
{
    return a != b;
}

static void logic_K(const struct logic_fields *f, const uint8_t *a, const uint8_t *b, uint8_t *y)
{
    for (ptrdiff_t outer = 0; outer < outer_runs(f->d); outer++) {
        const uint8_t *left = a + place(f->d, f->a_s, 5, outer);
        const uint8_t *right = b + place(f->d, f->b_s, 5, outer);
        for (ptrdiff_t i = 0; i < f->d[5]; i++) {
            *y++ = truth_K(left[i * f->a_s[5]] != 0, right[i * f->b_s[5]] != 0);
        }
    }
}
