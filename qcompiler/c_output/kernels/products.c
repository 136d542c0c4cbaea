/* Matrix products. Sums are exact modulo 2^32, and their total fits 32 bits: the lowering has proved it. */

/* sum + x @ w. */
static uint32_t dot_X(const X_t *x, const int8_t *w, ptrdiff_t count, uint32_t sum)
{
    for (ptrdiff_t i = 0; i < count; i++) {
        sum += (uint32_t)((int32_t)x[i] * w[i]);
    }
    return sum;
}

static uint32_t dot_i32(const int32_t *x, const int8_t *w, ptrdiff_t count, uint32_t sum)
{
    for (ptrdiff_t i = 0; i < count; i++) {
        sum += (uint32_t)x[i] * (uint32_t)w[i];
    }
    return sum;
}

/* The code of a sum: requantized with a factor of its own. */
static Y_t code_Y(uint32_t sum, int32_t m, int32_t n, int32_t y_zp, int64_t lo, int64_t hi)
{
    return store_Y(clamp(requant(low_i32(sum), m, n) + y_zp, lo, hi));
}

struct gemm_fields {
    ptrdiff_t rows, k, cols, x_row, y_row, x_offset, y_offset;
    int32_t y_zp;
    int64_t lo, hi;
};

/* x [rows, k], w [cols, k], y [rows, cols]; the zero point of x is in the bias. */
static void gemm_X_Y(const struct gemm_fields *f, const X_t *x, const int8_t *w, const int32_t *bias, const int32_t *m,
                     const int32_t *n, Y_t *y)
{
    for (ptrdiff_t row = 0; row < f->rows; row++) {
        const X_t *line = x + f->x_offset + row * f->x_row;
        Y_t *target = y + f->y_offset + row * f->y_row;
        for (ptrdiff_t col = 0; col < f->cols; col++) {
            const uint32_t sum = dot_X(line, w + col * f->k, f->k, (uint32_t)bias[col]);
            target[col] = code_Y(sum, m[col], n[col], f->y_zp, f->lo, f->hi);
        }
    }
}

struct matmul_fields {
    ptrdiff_t b[4], rows, k, cols;
    ptrdiff_t a_s[4], a_offset, a_row, a_col;
    ptrdiff_t b_s[4], b_offset, b_row, b_col;
    ptrdiff_t y_s[4], y_offset, y_row, y_col;
    int32_t a_zp, b_zp;
    int64_t m;
    int32_t n, y_zp;
    int64_t lo, hi;
};

/* A row of a times a column of b, where the sum fits 32 bits. */
static int64_t sum32_A_B(const struct matmul_fields *f, const A_t *a, const B_t *b)
{
    uint32_t sum = 0;
    for (ptrdiff_t k = 0; k < f->k; k++) {
        sum += (uint32_t)(a[k * f->a_col] - f->a_zp) * (uint32_t)(b[k * f->b_row] - f->b_zp);
    }
    return low_i32(sum);
}

/* The same where it may not. */
static int64_t sum64_A_B(const struct matmul_fields *f, const A_t *a, const B_t *b)
{
    int64_t sum = 0;
    for (ptrdiff_t k = 0; k < f->k; k++) {
        sum = add64(sum, (int64_t)(a[k * f->a_col] - f->a_zp) * (b[k * f->b_row] - f->b_zp));
    }
    return sum;
}

/* a [b0..b3, rows, k], b [b0..b3, k, cols], y [b0..b3, rows, cols], with strides on all sides. */
static void matmul_K_A_B_Y(const struct matmul_fields *f, const A_t *a, const B_t *b, Y_t *y)
{
    const ptrdiff_t batches = f->b[0] * f->b[1] * f->b[2] * f->b[3];
    for (ptrdiff_t i = 0; i < batches * f->rows; i++) {
        const ptrdiff_t batch = i / f->rows, row = i % f->rows;
        const A_t *line = a + f->a_offset + place(f->b, f->a_s, 4, batch) + row * f->a_row;
        const B_t *other = b + f->b_offset + place(f->b, f->b_s, 4, batch);
        Y_t *target = y + f->y_offset + place(f->b, f->y_s, 4, batch) + row * f->y_row;
        for (ptrdiff_t col = 0; col < f->cols; col++) {
            const int64_t sum = K_A_B(f, line, other + col * f->b_col);
            const int64_t value = add64(rounding_shift(mul64(sum, f->m), f->n), f->y_zp);
            target[col * f->y_col] = store_Y(clamp(value, f->lo, f->hi));
        }
    }
}
