/* Leaky integrate-and-fire neurons, forward and backward: see reference.py for the equations and the order of operations.
 *
 * One pass over T for a block of neurons at a time. The plain loops of passes.h are vectorised by the compiler; the file is
 * built once per instruction set and the loader picks one. It must be compiled with -ffp-contract=off: a fused multiply-add
 * would flip spikes. Of other headers only its own and the C library's are needed.
 */
#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include "equation.h"

#define BLOCK 512       /* neurons at a time: a block of h, and of what else the passes keep, stays in the first cache */
#define GRAIN 4096      /* fewer values per thread are not worth waking it */

typedef struct {
    const void *x;         /* [T, n] with stride x_stride between time steps, in elements */
    const void *v;         /* [n] or NULL: rest; in the compute type */
    const void *grad_s;    /* [T, n]; backward only */
    const void *grad_v;    /* [n] or NULL: zero; in the compute type; backward only */
    void *out;             /* spikes or grad_x [T, n] */
    void *v_out;           /* membrane potential after the last step, or its gradient before the first, [n], or NULL */
    double *grad_tau;      /* one partial sum per thread, or NULL */
    int64_t steps, n, x_stride, grad_s_stride;
    double tau, v_threshold, alpha;
    int32_t integration, soft_reset, surrogate, dtype, threads;
} LifCall;

enum { SIGMOID, ATAN, RECTANGLE, TRIANGLE, ERF, SOFTSIGN, EXPONENTIAL }; /* native.SURROGATES */

/* Only where one rounding more or less does not matter: in the surrogate gradient. */
#if defined(__FMA__) || defined(__ARM_FEATURE_FMA)
#define MULTIPLY_ADD_F32(a, b, c) __builtin_fmaf(a, b, c)
#define MULTIPLY_ADD_F64(a, b, c) __builtin_fma(a, b, c)
#else
#define MULTIPLY_ADD_F32(a, b, c) ((a) * (b) + (c))
#define MULTIPLY_ADD_F64(a, b, c) ((a) * (b) + (c))
#endif

/* exp(-a) for a >= 0 in straight-line code that vectorises: 2^k exp(r) with |r| <= ln 2 / 2 and a Taylor series for exp(r). */
static inline float exp_neg_f32(float a) {
    const float to_integer = 12582912.0f;                        /* 1.5 * 2^23: the sum's low bits are the rounded integer */
    const float x = a > 87.0f ? -87.0f : -a;
    const float shifted = MULTIPLY_ADD_F32(x, 1.44269504f, to_integer), k = shifted - to_integer;
    float r = MULTIPLY_ADD_F32(k, -0.693145752f, x);
    r = MULTIPLY_ADD_F32(k, -1.42860677e-6f, r);
    float p = 1.0f / 5040;
    p = MULTIPLY_ADD_F32(p, r, 1.0f / 720);
    p = MULTIPLY_ADD_F32(p, r, 1.0f / 120);
    p = MULTIPLY_ADD_F32(p, r, 1.0f / 24);
    p = MULTIPLY_ADD_F32(p, r, 1.0f / 6);
    p = MULTIPLY_ADD_F32(p, r, 0.5f);
    p = MULTIPLY_ADD_F32(p, r, 1.0f);
    p = MULTIPLY_ADD_F32(p, r, 1.0f);
    int32_t bits;
    memcpy(&bits, &shifted, 4);
    bits = (int32_t)(((uint32_t)bits + 127) << 23);
    float power;
    memcpy(&power, &bits, 4);
    return a > 87.0f ? 0.0f : p * power;
}

static inline double exp_neg_f64(double a) {
    const double to_integer = 6755399441055744.0;                /* 1.5 * 2^52 */
    const double x = a > 708.0 ? -708.0 : -a;
    const double shifted = MULTIPLY_ADD_F64(x, 1.4426950408889634, to_integer), k = shifted - to_integer;
    double r = MULTIPLY_ADD_F64(k, -6.93147180369123816490e-01, x);
    r = MULTIPLY_ADD_F64(k, -1.90821492927058770002e-10, r);
    double p = 1.0 / 6227020800;
    p = MULTIPLY_ADD_F64(p, r, 1.0 / 479001600);
    p = MULTIPLY_ADD_F64(p, r, 1.0 / 39916800);
    p = MULTIPLY_ADD_F64(p, r, 1.0 / 3628800);
    p = MULTIPLY_ADD_F64(p, r, 1.0 / 362880);
    p = MULTIPLY_ADD_F64(p, r, 1.0 / 40320);
    p = MULTIPLY_ADD_F64(p, r, 1.0 / 5040);
    p = MULTIPLY_ADD_F64(p, r, 1.0 / 720);
    p = MULTIPLY_ADD_F64(p, r, 1.0 / 120);
    p = MULTIPLY_ADD_F64(p, r, 1.0 / 24);
    p = MULTIPLY_ADD_F64(p, r, 1.0 / 6);
    p = MULTIPLY_ADD_F64(p, r, 0.5);
    p = MULTIPLY_ADD_F64(p, r, 1.0);
    p = MULTIPLY_ADD_F64(p, r, 1.0);
    int64_t bits;
    memcpy(&bits, &shifted, 8);
    bits = (int64_t)(((uint64_t)bits + 1023) << 52);
    double power;
    memcpy(&power, &bits, 8);
    return a > 708.0 ? 0.0 : p * power;
}

/* The half types are handled by their bits and round to nearest even, as the hardware conversions do. */
static inline float load_bf16(uint16_t x) {
    uint32_t bits = (uint32_t)x << 16;
    float y;
    memcpy(&y, &bits, 4);
    return y;
}

static inline uint16_t store_bf16(float x) {
    uint32_t bits;
    memcpy(&bits, &x, 4);
    const uint32_t rounded = (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
    return x != x ? 0x7fc0u : (uint16_t)rounded;
}

static inline float load_f16(uint16_t x) {
    const uint32_t sign = (uint32_t)(x & 0x8000u) << 16, magnitude = x & 0x7fffu;
    uint32_t bits = magnitude << 13;
    float y;
    memcpy(&y, &bits, 4);
    y *= 5.192296858534828e+33f;                                 /* 2^112 rebiases the exponent, subnormals included */
    memcpy(&bits, &y, 4);
    bits = (magnitude >= 0x7c00u ? 0x7f800000u | (magnitude << 13) : bits) | sign;
    memcpy(&y, &bits, 4);
    return y;
}

static inline uint16_t store_f16(float x) {
    uint32_t bits, subnormal;
    memcpy(&bits, &x, 4);
    const uint32_t sign = (bits >> 16) & 0x8000u, magnitude = bits & 0x7fffffffu;
    const uint32_t normal = (magnitude - 0x38000000u + 0xfffu + ((magnitude >> 13) & 1u)) >> 13;
    float aligned;
    memcpy(&aligned, &magnitude, 4);
    aligned += 0.5f;                                             /* its low bits are the subnormal of float16, rounded */
    memcpy(&subnormal, &aligned, 4);
    uint32_t out = magnitude < 0x38800000u ? subnormal - 0x3f000000u : normal;
    out = magnitude >= 0x477ff000u ? 0x7c00u : out;              /* rounds to infinity */
    out = magnitude > 0x7f800000u ? 0x7e00u : out;               /* NaN */
    return (uint16_t)(out | sign);
}

enum { FLOAT32, FLOAT64, BFLOAT16, FLOAT16 };                    /* native._DTYPES */

/* `steps` rows of `count` half-precision numbers at in + t * stride, as floats [steps, BLOCK]. */
static void widen(int dtype, const uint16_t *restrict in, int64_t stride, float *restrict out, int64_t steps, int64_t count) {
    for (int64_t t = 0; t < steps; t++)
        if (dtype == BFLOAT16) for (int64_t j = 0; j < count; j++) out[t * BLOCK + j] = load_bf16(in[t * stride + j]);
        else for (int64_t j = 0; j < count; j++) out[t * BLOCK + j] = load_f16(in[t * stride + j]);
}

/* The way back. */
static void narrow(int dtype, const float *restrict in, uint16_t *restrict out, int64_t stride, int64_t steps, int64_t count) {
    for (int64_t t = 0; t < steps; t++)
        if (dtype == BFLOAT16) for (int64_t j = 0; j < count; j++) out[t * stride + j] = store_bf16(in[t * BLOCK + j]);
        else for (int64_t j = 0; j < count; j++) out[t * stride + j] = store_f16(in[t * BLOCK + j]);
}

#define PASTE_(a, b) a##_##b
#define PASTE(a, b) PASTE_(a, b)
#define REAL float
#define TYPE f32
#include "passes.h"
#undef REAL
#undef TYPE
#define REAL double
#define TYPE f64
#include "passes.h"

enum { DONE, NO_MEMORY, REFUSED };                               /* native._REASONS */

/* Whether the call makes sense in itself; that the arrays are as long as it says is for the caller to see to. */
static int makes_sense(const LifCall *c, int backward) {
    int64_t values;
    if (!c || c->steps < 0 || c->n < 0 || __builtin_mul_overflow(c->steps, c->n, &values) || c->threads < 1) return 0;
    if (c->dtype < FLOAT32 || c->dtype > FLOAT16 || !KNOWN_INTEGRATION(c->integration)) return 0;
    if (c->surrogate < SIGMOID || c->surrogate > EXPONENTIAL || (c->soft_reset & ~1)) return 0;
    return !values || (c->x && c->out && (!backward || c->grad_s));
}

/* The neurons are split into one contiguous range per thread, in whole blocks. */
static void range_of(const LifCall *c, int part, int parts, int64_t *from, int64_t *to) {
    const int64_t blocks = (c->n + BLOCK - 1) / BLOCK;
    *from = blocks * part / parts * BLOCK;
    *to = blocks * (part + 1) / parts * BLOCK;
    if (*to > c->n) *to = c->n;
}

static int parts_for(const LifCall *c) {
    const int64_t useful = c->n * c->steps / GRAIN + 1;
    return useful < c->threads ? (int)useful : c->threads;
}

int lif_forward(const LifCall *c) {
    if (!makes_sense(c, 0)) return REFUSED;
    const int parts = parts_for(c);
#pragma omp parallel for num_threads(parts) schedule(static, 1) if (parts > 1)
    for (int part = 0; part < parts; part++) {
        int64_t from, to;
        range_of(c, part, parts, &from, &to);
        if (c->dtype == FLOAT64) forward_f64(c, from, to);
        else forward_f32(c, from, to);
    }
    return DONE;
}

/* NO_MEMORY if that for a block of potentials could not be had; nothing is written then. */
int lif_backward(const LifCall *c) {
    if (!makes_sense(c, 1)) return REFUSED;
    const int parts = parts_for(c);
    size_t each, all;
    if (__builtin_mul_overflow((size_t)c->steps, (size_t)BLOCK * (c->dtype == FLOAT64 ? 8 : 4) * (c->grad_tau ? 3 : 2), &each)) return NO_MEMORY;
    if (__builtin_mul_overflow(each, (size_t)parts, &all)) return NO_MEMORY;
    char *scratch = aligned_alloc(64, all);
    if (!scratch) return NO_MEMORY;
#pragma omp parallel for num_threads(parts) schedule(static, 1) if (parts > 1)
    for (int part = 0; part < parts; part++) {
        int64_t from, to;
        double *grad_tau = c->grad_tau ? c->grad_tau + part : NULL;
        void *mine = scratch + each * part;
        range_of(c, part, parts, &from, &to);
        if (c->dtype == FLOAT64) backward_f64(c, from, to, mine, grad_tau);
        else backward_f32(c, from, to, mine, grad_tau);
    }
    free(scratch);
    return DONE;
}
