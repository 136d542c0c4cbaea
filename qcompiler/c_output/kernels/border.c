/* The border: float numbers become codes and codes become float numbers, as ONNX defines it. All floats are here. */

#define LARGEST_f32 FLT_MAX
#define LARGEST_f64 DBL_MAX
#define LEAST_u8 0
#define MOST_u8 UINT8_MAX
#define LEAST_i8 INT8_MIN
#define MOST_i8 INT8_MAX
#define LEAST_i16 INT16_MIN
#define MOST_i16 INT16_MAX

static int is_finite_F(F_t value)
{
    return value >= -LARGEST_F && value <= LARGEST_F;
}

/* The code of a number on a grid: round_half_even(x / scale) + zero point, saturated. */
static int32_t quantized(float x, float scale, int32_t zero_point, int32_t least, int32_t most)
{
    const float limit = 1048576.0f; /* beyond it every code saturates */
    float ratio = x / scale;
    ratio = ratio > limit ? limit : ratio < -limit ? -limit : ratio;
    int32_t whole = (int32_t)ratio;
    const float rest = ratio - (float)whole;
    if (rest > 0.5f || (rest == 0.5f && whole % 2 != 0)) {
        whole += 1;
    } else if (rest < -0.5f || (rest == -0.5f && whole % 2 != 0)) {
        whole -= 1;
    }
    whole += zero_point;
    return whole < least ? least : whole > most ? most : whole;
}

/* Not 0: there is NaN or infinity among the numbers. */
static int quantize_F_Y(const F_t *x, Y_t *y, ptrdiff_t count, float scale, int32_t zero_point)
{
    for (ptrdiff_t i = 0; i < count; i++) {
        if (!is_finite_F(x[i])) {
            return 1;
        }
        y[i] = (Y_t)quantized((float)x[i], scale, zero_point, LEAST_Y, MOST_Y);
    }
    return 0;
}

/* The same where the columns of [outer, columns, inner] have grids of their own. */
static int quantize_columns_F_Y(const F_t *x, Y_t *y, ptrdiff_t outer, ptrdiff_t columns, ptrdiff_t inner,
                                const float *scales, const int32_t *zero_points)
{
    for (ptrdiff_t i = 0; i < outer * columns; i++) {
        const ptrdiff_t column = i % columns;
        if (quantize_F_Y(x + i * inner, y + i * inner, inner, scales[column], zero_points[column])) {
            return 1;
        }
    }
    return 0;
}

static void dequantize_X_F(const X_t *x, F_t *y, ptrdiff_t count, float scale, int32_t zero_point)
{
    for (ptrdiff_t i = 0; i < count; i++) {
        const float real = (float)low_i32((int64_t)x[i] - zero_point) * scale;
        y[i] = real;
    }
}

static void dequantize_columns_X_F(const X_t *x, F_t *y, ptrdiff_t outer, ptrdiff_t columns, ptrdiff_t inner,
                                   const float *scales, const int32_t *zero_points)
{
    for (ptrdiff_t i = 0; i < outer * columns; i++) {
        const ptrdiff_t column = i % columns;
        dequantize_X_F(x + i * inner, y + i * inner, inner, scales[column], zero_points[column]);
    }
}

/* A code that stands for a number of its own. */
static void replace_code_X_F(const X_t *x, F_t *y, ptrdiff_t count, int32_t code, F_t number)
{
    for (ptrdiff_t i = 0; i < count; i++) {
        y[i] = x[i] == code ? number : y[i];
    }
}

/* Whether an input that the program was made for one number of holds another. */
static int differs_X(const X_t *x, ptrdiff_t count, int64_t only)
{
    for (ptrdiff_t i = 0; i < count; i++) {
        if (x[i] != only) {
            return 1;
        }
    }
    return 0;
}
