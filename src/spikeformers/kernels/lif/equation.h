/* How membranes charge: h[t] from x[t] and v[t-1], as integrations.py has it. Included by all kernels that have neurons.
 *
 * A new way to integrate is a name in EACH_MODE, its place in native.INTEGRATIONS, and a case in each function.
 */
#include <math.h>
#include <stdint.h>

#define EACH_MODE(X, ...) X(LEAKY, __VA_ARGS__) X(LEAKY_FULL_INPUT, __VA_ARGS__) X(PERFECT, __VA_ARGS__) X(LEAKY_EXACT, __VA_ARGS__)
#define AS_NAME(name, ...) name,
enum { EACH_MODE(AS_NAME, ) };
#define KNOWN_INTEGRATION(i) ((i) >= LEAKY && (i) < LEAKY_EXACT) /* native.INTEGRATIONS; what comes behind them is a faster form of one */

/* For a tau that is a power of two, multiplying by 1/tau gives the same bits as dividing by tau at a third of the cost. */
static inline int mode_of(int integration, double tau) {
    int exponent;
    return integration == LEAKY && frexp(tau, &exponent) == 0.5 ? LEAKY_EXACT : integration;
}

/* h[t]. VALUE is the type of potentials: a number, REAL, or a vector of them. */
#define DEFINE_CHARGE(name, VALUE, REAL)                                                                                       \
    static inline __attribute__((always_inline)) VALUE name(VALUE x, VALUE v, REAL tau, REAL rate, int mode) {                 \
        switch (mode) {                                                                                                        \
            case LEAKY_EXACT: return v + (x - v) * rate;                                                                       \
            case LEAKY: return v + (x - v) / tau;                                                                              \
            case LEAKY_FULL_INPUT: return (v - v / tau) + x;                                                                   \
            default: return v + x;                                                                                             \
        }                                                                                                                      \
    }

/* From the gradient of h[t] to those of x[t] and v[t-1]. */
#define DEFINE_BACK(name, REAL)                                                                                                \
    static inline __attribute__((always_inline)) void name(REAL grad, REAL tau, int mode, REAL *grad_x, REAL *grad_v) {        \
        const REAL leak = mode == LEAKY_EXACT ? grad * (1 / tau) : grad / tau;                                                 \
        *grad_x = mode == LEAKY || mode == LEAKY_EXACT ? leak : grad;                                                          \
        *grad_v = mode == PERFECT ? grad : grad - leak;                                                                        \
    }

/* tau times its gradient, from that of h[t]: dh/dtau = -(x - v) / tau^2, or v / tau^2. Branches, and no switch, leave a compiler's loop. */
#define DEFINE_BACK_TO_TAU(name, REAL)                                                                                         \
    static inline __attribute__((always_inline)) double name(REAL grad, REAL x, REAL v, REAL tau, int mode) {                  \
        if (mode == LEAKY || mode == LEAKY_EXACT) return -(double)(grad * ((x - v) / tau));                                    \
        if (mode == LEAKY_FULL_INPUT) return (double)(grad * (v / tau));                                                       \
        return 0;                                                                                                              \
    }
