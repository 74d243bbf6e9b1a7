/* The passes of native.c for one compute type: included once for each, with REAL and its short name TYPE defined.
 *
 * Every constant that an inner loop branches on is a compile-time constant there, so that each combination becomes a vectorised
 * loop of its own, and S time steps (1 or 4) are unrolled with the state of a neuron in a register meanwhile.
 */
#define NAME(f) PASTE(f, TYPE)
#define INLINE static inline __attribute__((always_inline))
#define STEPS(S) _Pragma("GCC unroll 4") for (int64_t t = 0; t < S; t++)
#define WITH_MODE(mode_, f, ...)                      \
    case mode_ * 2: f(__VA_ARGS__, mode_, 0); break;  \
    case mode_ * 2 + 1: f(__VA_ARGS__, mode_, 1); break;
#define WITH_CONSTANTS(f, ...) \
    switch (mode * 2 + soft) { EACH_MODE(WITH_MODE, f, __VA_ARGS__) }

DEFINE_CHARGE(NAME(charge), REAL, REAL)
DEFINE_BACK(NAME(uncharge), REAL)
DEFINE_BACK_TO_TAU(NAME(uncharge_tau), REAL)

INLINE REAL NAME(reset)(REAL h, REAL threshold, int soft) {
    return h >= threshold ? (soft ? h - threshold : (REAL)0) : h;
}

/* Spikes, and the potential v after S steps. */
INLINE void NAME(fire)(const REAL *restrict x, int64_t x_stride, REAL *restrict out, int64_t out_stride, REAL *restrict v,
                       int64_t count, REAL tau, REAL threshold, int S, int mode, int soft) {
    for (int64_t j = 0; j < count; j++) {
        REAL u = v[j];
        STEPS(S) {
            u = NAME(charge)(x[t * x_stride + j], u, tau, 1 / tau, mode);
            out[t * out_stride + j] = u >= threshold;
            u = NAME(reset)(u, threshold, soft);
        }
        v[j] = u;
    }
}

/* The potentials h before firing [S, BLOCK], and the potential v after S steps. */
INLINE void NAME(recharge)(const REAL *restrict x, int64_t x_stride, REAL *restrict h, REAL *restrict v, int64_t count,
                           REAL tau, REAL threshold, int S, int mode, int soft) {
    for (int64_t j = 0; j < count; j++) {
        REAL u = v[j];
        STEPS(S) {
            u = NAME(charge)(x[t * x_stride + j], u, tau, 1 / tau, mode);
            h[t * BLOCK + j] = u;
            u = NAME(reset)(u, threshold, soft);
        }
        v[j] = u;
    }
}

/* Back through S steps: g is the gradient of the potential after them, and becomes that before them; h becomes its gradient. */
INLINE void NAME(back)(const REAL *restrict grad_s, int64_t grad_s_stride, REAL *restrict out, int64_t out_stride,
                       const REAL *restrict slope, REAL *restrict h, REAL *restrict g, int64_t count, REAL tau, REAL threshold,
                       int S, int mode, int soft) {
    for (int64_t j = 0; j < count; j++) {
        REAL u = g[j];
        STEPS(S) {
            const int64_t k = S - 1 - t;
            const REAL through_reset = soft || !(h[k * BLOCK + j] >= threshold) ? u : (REAL)0;
            const REAL grad_h = grad_s[k * grad_s_stride + j] * slope[k * BLOCK + j] + through_reset;
            h[k * BLOCK + j] = grad_h;
            NAME(uncharge)(grad_h, tau, mode, &out[k * out_stride + j], &u);
        }
        g[j] = u;
    }
}

/* The surrogate's derivative at h - threshold. */
static void NAME(surrogate)(int kind, REAL alpha, REAL threshold, const REAL *restrict h, REAL *restrict out, int64_t count) {
    const REAL width = (REAL)(1.57079632679489661923 * (double)alpha);
    if (kind == SIGMOID)
        for (int64_t j = 0; j < count; j++) {
            const REAL z = alpha * (h[j] - threshold), e = sizeof(REAL) == 4 ? exp_neg_f32(fabsf(z)) : exp_neg_f64(fabs(z));
            out[j] = alpha * e / ((1 + e) * (1 + e));
        }
    else if (kind == ATAN)
        for (int64_t j = 0; j < count; j++) {
            const REAL y = width * (h[j] - threshold);
            out[j] = alpha / 2 / (1 + y * y);
        }
    else if (kind == RECTANGLE)
        for (int64_t j = 0; j < count; j++) {
            const REAL z = alpha * (h[j] - threshold);
            out[j] = z < (REAL)0.5 && z > (REAL)-0.5 ? alpha : (REAL)0;
        }
    else if (kind == ERF)
        for (int64_t j = 0; j < count; j++) {
            const REAL z = alpha * (h[j] - threshold), y = z * z;
            out[j] = (REAL)(0.56418958354775628695 * (double)alpha) * (sizeof(REAL) == 4 ? exp_neg_f32(y) : exp_neg_f64(y));
        }
    else if (kind == SOFTSIGN)
        for (int64_t j = 0; j < count; j++) {
            const REAL z = alpha * (h[j] - threshold), y = 1 + (z < 0 ? -z : z);
            out[j] = alpha / 2 / (y * y);
        }
    else if (kind == EXPONENTIAL)
        for (int64_t j = 0; j < count; j++) {
            const REAL z = alpha * (h[j] - threshold), y = z < 0 ? -z : z;
            out[j] = alpha / 2 * (sizeof(REAL) == 4 ? exp_neg_f32(y) : exp_neg_f64(y));
        }
    else
        for (int64_t j = 0; j < count; j++) {
            const REAL z = alpha * (h[j] - threshold), y = 1 - (z < 0 ? -z : z);
            out[j] = y < 0 ? (REAL)0 : alpha * y;  /* NaN stays */
        }
}

static void NAME(start)(REAL *v, const void *from, int64_t at, int64_t count) {
    if (from) memcpy(v, (const REAL *)from + at, count * sizeof(REAL));
    else memset(v, 0, count * sizeof(REAL));
}

/* Rows t .. t + steps of tensor [T, n] from neuron `at` on: in place, or widened to `buffer` [steps, BLOCK]. Sets the stride. */
static const REAL *NAME(rows)(const LifCall *c, const void *tensor, int64_t tensor_stride, int64_t t, int64_t steps, int64_t at,
                              int64_t count, REAL *buffer, int64_t *stride) {
    const int64_t first = t * tensor_stride + at;
    *stride = tensor_stride;
    if (sizeof(REAL) == 8 || c->dtype == FLOAT32) return (const REAL *)tensor + first;
    widen(c->dtype, (const uint16_t *)tensor + first, tensor_stride, (float *)buffer, steps, count);
    *stride = BLOCK;
    return buffer;
}

static void NAME(forward)(const LifCall *c, int64_t from, int64_t to) {
    const REAL tau = (REAL)c->tau, threshold = (REAL)c->v_threshold;
    const int mode = mode_of(c->integration, c->tau), soft = c->soft_reset, half = c->dtype == BFLOAT16 || c->dtype == FLOAT16;
    REAL v[BLOCK], wide[4 * BLOCK], spikes[4 * BLOCK];
    for (int64_t at = from; at < to; at += BLOCK) {
        const int64_t count = to - at < BLOCK ? to - at : BLOCK;
        NAME(start)(v, c->v, at, count);
        for (int64_t t = 0, steps; t < c->steps; t += steps) {
            int64_t x_stride, out_stride = half ? BLOCK : c->n;
            steps = c->steps - t >= 4 ? 4 : 1;
            const REAL *x = NAME(rows)(c, c->x, c->x_stride, t, steps, at, count, wide, &x_stride);
            REAL *out = half ? spikes : (REAL *)c->out + t * c->n + at;
            if (steps == 4) WITH_CONSTANTS(NAME(fire), x, x_stride, out, out_stride, v, count, tau, threshold, 4)
            else WITH_CONSTANTS(NAME(fire), x, x_stride, out, out_stride, v, count, tau, threshold, 1)
            if (half) narrow(c->dtype, (float *)spikes, (uint16_t *)c->out + t * c->n + at, c->n, steps, count);
        }
        if (c->v_out) memcpy((REAL *)c->v_out + at, v, count * sizeof(REAL));
    }
}

/* scratch: [3, T, BLOCK] if grad_tau is wanted, otherwise [2, T, BLOCK] */
static void NAME(backward)(const LifCall *c, int64_t from, int64_t to, void *scratch, double *grad_tau) {
    const REAL tau = (REAL)c->tau, threshold = (REAL)c->v_threshold, alpha = (REAL)c->alpha;
    const int mode = mode_of(c->integration, c->tau), soft = c->soft_reset, half = c->dtype == BFLOAT16 || c->dtype == FLOAT16;
    REAL v[BLOCK], wide[4 * BLOCK], result[4 * BLOCK];
    REAL *h = scratch, *slope = h + c->steps * BLOCK, *before = slope + c->steps * BLOCK;
    for (int64_t at = from; at < to; at += BLOCK) {
        const int64_t count = to - at < BLOCK ? to - at : BLOCK;
        NAME(start)(v, c->v, at, count);
        for (int64_t t = 0, steps; t < c->steps; t += steps) {
            int64_t x_stride;
            steps = c->steps - t >= 4 && !grad_tau ? 4 : 1;
            const REAL *x = NAME(rows)(c, c->x, c->x_stride, t, steps, at, count, wide, &x_stride);
            REAL *ht = h + t * BLOCK;
            if (grad_tau) memcpy(before + t * BLOCK, v, count * sizeof(REAL));
            if (steps == 4) WITH_CONSTANTS(NAME(recharge), x, x_stride, ht, v, count, tau, threshold, 4)
            else WITH_CONSTANTS(NAME(recharge), x, x_stride, ht, v, count, tau, threshold, 1)
        }
        for (int64_t t = 0; t < c->steps; t++)
            NAME(surrogate)(c->surrogate, alpha, threshold, h + t * BLOCK, slope + t * BLOCK, count);
        NAME(start)(v, c->grad_v, at, count);
        for (int64_t t = c->steps, steps; t > 0;) {
            int64_t stride, out_stride = half ? BLOCK : c->n;
            steps = t >= 4 ? 4 : 1;
            t -= steps;
            const REAL *grad_s = NAME(rows)(c, c->grad_s, c->grad_s_stride, t, steps, at, count, wide, &stride);
            REAL *out = half ? result : (REAL *)c->out + t * c->n + at, *ht = h + t * BLOCK, *st = slope + t * BLOCK;
            if (steps == 4) WITH_CONSTANTS(NAME(back), grad_s, stride, out, out_stride, st, ht, v, count, tau, threshold, 4)
            else WITH_CONSTANTS(NAME(back), grad_s, stride, out, out_stride, st, ht, v, count, tau, threshold, 1)
            if (half) narrow(c->dtype, (float *)result, (uint16_t *)c->out + t * c->n + at, c->n, steps, count);
        }
        if (c->v_out) memcpy((REAL *)c->v_out + at, v, count * sizeof(REAL));
        for (int64_t t = 0; grad_tau && t < c->steps; t++) {
            int64_t x_stride;
            const REAL *x = NAME(rows)(c, c->x, c->x_stride, t, 1, at, count, wide, &x_stride);
            const REAL *grad_h = h + t * BLOCK, *u = before + t * BLOCK;
            double sum = 0;
            for (int64_t j = 0; j < count; j++) sum += NAME(uncharge_tau)(grad_h[j], x[j], u[j], tau, mode);
            *grad_tau += sum / (double)tau;
        }
    }
}

#undef NAME
#undef INLINE
#undef STEPS
#undef WITH_CONSTANTS
#undef WITH_MODE
