/* Arithmetic that is the same on every compiler: no step depends on what C leaves to the implementation, and sums and
 * products of 64 bits wrap as those of the machine do. */

static int64_t low_i64(uint64_t bits)
{
    return bits <= (uint64_t)INT64_MAX ? (int64_t)bits : -(int64_t)~bits - 1;
}

static int32_t low_i32(int64_t value)
{
    const uint32_t bits = (uint32_t)(uint64_t)value;
    return bits <= (uint32_t)INT32_MAX ? (int32_t)bits : -(int32_t)~bits - 1;
}

static int16_t low_i16(int64_t value)
{
    const int32_t bits = (int32_t)((uint64_t)value & 0xFFFF);
    return (int16_t)(bits < 0x8000 ? bits : bits - 0x10000);
}

static int8_t low_i8(int64_t value)
{
    const int32_t bits = (int32_t)((uint64_t)value & 0xFF);
    return (int8_t)(bits < 0x80 ? bits : bits - 0x100);
}

static uint8_t low_u8(int64_t value)
{
    return (uint8_t)((uint64_t)value & 0xFF);
}

/* The low bits of a result, as an element. */
static Y_t store_Y(int64_t value)
{
    return low_Y(value);
}

static int64_t store_i64(int64_t value)
{
    return value;
}

static int64_t add64(int64_t a, int64_t b)
{
    return low_i64((uint64_t)a + (uint64_t)b);
}

static int64_t sub64(int64_t a, int64_t b)
{
    return low_i64((uint64_t)a - (uint64_t)b);
}

static int64_t mul64(int64_t a, int64_t b)
{
    return low_i64((uint64_t)a * (uint64_t)b);
}

/* floor(value / 2^n). C leaves the right shift of a negative number to the compiler; the first branch is taken where it
 * is this one, which compilers see at once. */
static int64_t shift_right(int64_t value, int32_t n)
{
    if ((INT64_C(-1) >> 1) == -1) {
        return value >> n;
    }
    return value < 0 ? ~(~value >> n) : value >> n;
}

/* floor(a / b) for b > 0. */
static int64_t floor_divide(int64_t a, int64_t b)
{
    const int64_t quotient = a / b;
    return a % b < 0 ? quotient - 1 : quotient;
}

/* What is added before a shift by n: half of 2^n, 0 for n = 0. */
static int64_t half_of(int32_t n)
{
    return (INT64_C(1) << n) >> 1;
}

/* value / 2^n, rounded to nearest, ties up. */
static int64_t rounding_shift(int64_t value, int32_t n)
{
    return shift_right(add64(value, half_of(n)), n);
}

static int64_t clamp(int64_t value, int64_t lo, int64_t hi)
{
    const int64_t above = value > lo ? value : lo;
    return above < hi ? above : hi;
}

/* a * m / 2^n, one rounding: a 31-bit multiplier and an accumulator of 32 bits cannot overflow. */
static int64_t requant(int64_t a, int64_t m, int32_t n)
{
    return shift_right(a * m + half_of(n), n);
}
