/* One direction of an LSTM or a GRU. Gates are Q11 numbers, activations Q15 by tables of 65536 entries; new states are
 * written to the output first, since all gates of a step read the old ones. */

/* The activation of a Q11 number, saturated to 16 bits. */
static int32_t activation(const int16_t *table, int64_t value)
{
    return table[clamp(value, INT16_MIN, INT16_MAX) + 32768];
}

/* Steps of a sequence; no lengths (null): all. */
static ptrdiff_t steps_of_A(const A_t *lengths, ptrdiff_t sequence, ptrdiff_t steps)
{
    return lengths ? (ptrdiff_t)clamp(lengths[sequence], 0, steps) : steps;
}

/* bias + codes @ w of one gate, requantized; w [gates, count]. */
static int64_t gate_X(const X_t *codes, const int8_t *w, ptrdiff_t count, ptrdiff_t gate, const int32_t *bias,
                      const int32_t *m, const int32_t *n)
{
    return requant(low_i32(dot_X(codes, w + gate * count, count, (uint32_t)bias[gate])), m[gate], n[gate]);
}

struct lstm_fields {
    ptrdiff_t steps, batch, inputs, hidden, reverse, y_offset, y_step, y_row;
    int64_t m_h;
    int32_t n_h, y_zp;
    int64_t lo, hi;
};

/* One step of one sequence: x [inputs], y and h [hidden], c [hidden] in Q16. */
static void lstm_step_X_Y(const struct lstm_fields *f, const X_t *x, Y_t *y, Y_t *h, int32_t *c, const int16_t *table_h,
                          const int8_t *w, const int8_t *r, const int32_t *bias_w, const int32_t *m_w, const int32_t *n_w,
                          const int32_t *bias_r, const int32_t *m_r, const int32_t *n_r, const int16_t *table_f,
                          const int16_t *table_g)
{
    for (ptrdiff_t j = 0; j < f->hidden; j++) {
        int64_t gates[4];
        for (ptrdiff_t i = 0; i < 4; i++) {
            const ptrdiff_t gate = i * f->hidden + j;
            const int64_t sum = gate_X(x, w, f->inputs, gate, bias_w, m_w, n_w)
                                + gate_Y(h, r, f->hidden, gate, bias_r, m_r, n_r);
            gates[i] = activation(i < 3 ? table_f : table_g, sum);
        }
        const int64_t cell = rounding_shift(gates[2] * c[j] + 2 * gates[0] * gates[3], 15);
        c[j] = (int32_t)clamp(cell, INT32_MIN, INT32_MAX);
        const int64_t state = gates[1] * activation(table_h, rounding_shift(c[j], 5));
        y[j] = store_Y(clamp(add64(rounding_shift(mul64(state, f->m_h), f->n_h), f->y_zp), f->lo, f->hi));
    }
    copy_Y(y, h, f->hidden);
}

static void lstm_X_Y_A(const struct lstm_fields *f, const X_t *x, Y_t *y, Y_t *h, int32_t *c, const int16_t *table_h,
                       const int8_t *w, const int8_t *r, const int32_t *bias_w, const int32_t *m_w, const int32_t *n_w,
                       const int32_t *bias_r, const int32_t *m_r, const int32_t *n_r, const int16_t *table_f,
                       const int16_t *table_g, const A_t *lengths)
{
    for (ptrdiff_t i = 0; i < f->steps * f->batch; i++) {
        const ptrdiff_t step = i / f->batch, sequence = i % f->batch;
        const ptrdiff_t length = steps_of_A(lengths, sequence, f->steps);
        const ptrdiff_t position = f->reverse && step < length ? length - 1 - step : step;
        Y_t *target = y + f->y_offset + position * f->y_step + sequence * f->y_row;
        if (step < length) {
            lstm_step_X_Y(f, x + (position * f->batch + sequence) * f->inputs, target, h + sequence * f->hidden,
                          c + sequence * f->hidden, table_h, w, r, bias_w, m_w, n_w, bias_r, m_r, n_r, table_f, table_g);
            continue;
        }
        for (ptrdiff_t j = 0; j < f->hidden; j++) {
            target[j] = store_Y(clamp(f->y_zp, f->lo, f->hi));
        }
    }
}

struct gru_fields {
    ptrdiff_t steps, batch, inputs, hidden, reverse, linear_before_reset, y_offset, y_step, y_row;
    int64_t m_s, m_h;
    int32_t n_s, n_h, y_zp;
    int64_t lo, hi;
};

/* The state's codes scaled by the reset gate, for a product behind it. */
static void reset_state_X_Y(const struct gru_fields *f, const X_t *x, const Y_t *h, const int8_t *w, const int8_t *r,
                            const int32_t *bias_w, const int32_t *m_w, const int32_t *n_w, const int32_t *bias_r,
                            const int32_t *m_r, const int32_t *n_r, const int16_t *table_f, int32_t *reset)
{
    for (ptrdiff_t j = 0; j < f->hidden; j++) {
        const ptrdiff_t gate = f->hidden + j;
        const int64_t share = activation(table_f, gate_X(x, w, f->inputs, gate, bias_w, m_w, n_w)
                                                      + gate_Y(h, r, f->hidden, gate, bias_r, m_r, n_r));
        const int64_t distance = rounding_shift(share * (h[j] - f->y_zp), 15);
        reset[j] = low_i32(clamp(distance + f->y_zp, f->lo, f->hi));
    }
}

/* One step of one sequence: x [inputs], y, h and reset [hidden]. */
static void gru_step_X_Y(const struct gru_fields *f, const X_t *x, Y_t *y, Y_t *h, const int8_t *w, const int8_t *r,
                         const int32_t *bias_w, const int32_t *m_w, const int32_t *n_w, const int32_t *bias_r,
                         const int32_t *m_r, const int32_t *n_r, const int16_t *table_f, const int16_t *table_g,
                         int32_t *reset)
{
    if (!f->linear_before_reset) {
        reset_state_X_Y(f, x, h, w, r, bias_w, m_w, n_w, bias_r, m_r, n_r, table_f, reset);
    }
    for (ptrdiff_t j = 0; j < f->hidden; j++) {
        const ptrdiff_t last = 2 * f->hidden + j, middle = f->hidden + j;
        int64_t recurrent;
        if (f->linear_before_reset) {
            const int64_t share = activation(table_f, gate_X(x, w, f->inputs, middle, bias_w, m_w, n_w)
                                                          + gate_Y(h, r, f->hidden, middle, bias_r, m_r, n_r));
            recurrent = rounding_shift(mul64(share, gate_Y(h, r, f->hidden, last, bias_r, m_r, n_r)), 15);
        } else {
            recurrent = gate_i32(reset, r, f->hidden, last, bias_r, m_r, n_r);
        }
        const int64_t z = activation(table_f, gate_X(x, w, f->inputs, j, bias_w, m_w, n_w)
                                                  + gate_Y(h, r, f->hidden, j, bias_r, m_r, n_r));
        const int64_t g = activation(table_g, gate_X(x, w, f->inputs, last, bias_w, m_w, n_w) + recurrent);
        const int64_t old = requant(h[j] - f->y_zp, f->m_s, f->n_s);
        const int64_t mixed = add64(mul64(z, old), (32768 - z) * g);
        y[j] = store_Y(clamp(add64(rounding_shift(mul64(mixed, f->m_h), f->n_h), f->y_zp), f->lo, f->hi));
    }
    copy_Y(y, h, f->hidden);
}

static void gru_X_Y_A(const struct gru_fields *f, const X_t *x, Y_t *y, Y_t *h, const int8_t *w, const int8_t *r,
                      const int32_t *bias_w, const int32_t *m_w, const int32_t *n_w, const int32_t *bias_r,
                      const int32_t *m_r, const int32_t *n_r, const int16_t *table_f, const int16_t *table_g,
                      const A_t *lengths, int32_t *reset)
{
    for (ptrdiff_t i = 0; i < f->steps * f->batch; i++) {
        const ptrdiff_t step = i / f->batch, sequence = i % f->batch;
        const ptrdiff_t length = steps_of_A(lengths, sequence, f->steps);
        const ptrdiff_t position = f->reverse && step < length ? length - 1 - step : step;
        Y_t *target = y + f->y_offset + position * f->y_step + sequence * f->y_row;
        if (step < length) {
            gru_step_X_Y(f, x + (position * f->batch + sequence) * f->inputs, target, h + sequence * f->hidden, w, r,
                         bias_w, m_w, n_w, bias_r, m_r, n_r, table_f, table_g, reset);
            continue;
        }
        for (ptrdiff_t j = 0; j < f->hidden; j++) {
            target[j] = store_Y(clamp(f->y_zp, f->lo, f->hi));
        }
    }
}
