/* Vectors of VB bytes, spikes as bits, and the neuron at the end of an operation, for one compute type.
 *
 * Included once for each, with REAL, its short name TYPE and WIDE (an integer of REAL's size) defined. Vectors are GCC's, so that one
 * source serves every instruction set; only where bits become lanes or lanes bits there are intrinsics. Channels are handled in
 * tiles of 64, which are one word of spikes; the last tile of a map has 16, 32, 48 or 64 lanes.
 */
typedef REAL NAME(vec) __attribute__((vector_size(VB)));
typedef REAL NAME(loose) __attribute__((vector_size(VB), aligned(sizeof(REAL)), may_alias));
typedef WIDE NAME(mask) __attribute__((vector_size(VB), may_alias));
#define LN ((int)(VB / sizeof(REAL)))

/* Bit j of lane j. */
static const WIDE NAME(each)[16] __attribute__((aligned(64))) = {1,   2,   4,    8,    16,   32,   64,    128,
                                                                 256, 512, 1024, 2048, 4096, 8192, 16384, 32768};

/* Bit j is set where lane j of h has reached the threshold. */
INLINE uint64_t NAME(fired)(NAME(vec) h, REAL threshold) {
#if defined(__AVX512F__)
    if (sizeof(REAL) == 4) return _mm512_cmp_ps_mask((__m512)h, _mm512_set1_ps((float)threshold), _CMP_GE_OQ);
    return _mm512_cmp_pd_mask((__m512d)h, _mm512_set1_pd((double)threshold), _CMP_GE_OQ);
#elif defined(__AVX2__)
    if (sizeof(REAL) == 4) return (uint64_t)_mm256_movemask_ps(_mm256_cmp_ps((__m256)h, _mm256_set1_ps((float)threshold), _CMP_GE_OQ));
    return (uint64_t)_mm256_movemask_pd(_mm256_cmp_pd((__m256d)h, _mm256_set1_pd((double)threshold), _CMP_GE_OQ));
#else
    uint64_t bits = 0;
    for (int j = 0; j < LN; j++) bits |= (uint64_t)(h[j] >= threshold) << j;
    return bits;
#endif
}

/* a where the lane's bit is set, otherwise 0. */
INLINE NAME(vec) NAME(where)(uint64_t bits, NAME(vec) a) {
#if defined(__AVX512F__)
    if (sizeof(REAL) == 4) return (NAME(vec))_mm512_maskz_mov_ps((__mmask16)bits, (__m512)a);
    return (NAME(vec))_mm512_maskz_mov_pd((__mmask8)bits, (__m512d)a);
#else
    const NAME(mask) chosen = ((WIDE)bits & *(const NAME(mask) *)NAME(each)) != 0;
    return (NAME(vec))(chosen & (NAME(mask))a);
#endif
}

INLINE NAME(vec) NAME(add_where)(uint64_t bits, NAME(vec) sum, NAME(vec) a) {
#if defined(__AVX512F__)
    if (sizeof(REAL) == 4) return (NAME(vec))_mm512_mask_add_ps((__m512)sum, (__mmask16)bits, (__m512)sum, (__m512)a);
    return (NAME(vec))_mm512_mask_add_pd((__m512d)sum, (__mmask8)bits, (__m512d)sum, (__m512d)a);
#else
    return sum + NAME(where)(bits, a);
#endif
}

INLINE REAL *NAME(place)(const Values *m, int64_t t, int64_t b, int64_t pixel) {
    return (REAL *)m->values + t * m->t_stride + b * m->b_stride + pixel * m->pixel_stride;
}

/* `lanes` numbers into NV vectors; the rest is 0. */
INLINE void NAME(get)(const REAL *from, int lanes, NAME(vec) *to, int NV) {
    if (lanes == NV * LN) {
        for (int j = 0; j < NV; j++) to[j] = *(const NAME(loose) *)(from + j * LN);
    } else {
        REAL all[64] __attribute__((aligned(64))) = {0};
        memcpy(all, from, lanes * sizeof(REAL));
        for (int j = 0; j < NV; j++) to[j] = *(const NAME(vec) *)(all + j * LN);
    }
}

INLINE void NAME(put)(REAL *to, int lanes, const NAME(vec) *from, int NV) {
    if (lanes == NV * LN) {
        for (int j = 0; j < NV; j++) *(NAME(loose) *)(to + j * LN) = from[j];
    } else {
        memcpy(to, from, lanes * sizeof(REAL));
    }
}

DEFINE_CHARGE(NAME(charge), NAME(vec), REAL)

/* One step of NV vectors of neurons: charge, fire, reset, in the order of kernels/lif/reference.py. Returns the spikes. */
INLINE uint64_t NAME(step)(const Neuron *n, const NAME(vec) *x, NAME(vec) *v, int NV) {
    const REAL tau = (REAL)n->tau, rate = 1 / tau, threshold = (REAL)n->v_threshold;
    uint64_t word = 0;
    for (int j = 0; j < NV; j++) {
        const NAME(vec) h = NAME(charge)(x[j], v[j], tau, rate, n->mode);
        const uint64_t bits = NAME(fired)(h, threshold);
        word |= bits << (j * LN);
        v[j] = n->soft_reset ? h - NAME(where)(bits, threshold - (NAME(vec)){0}) : NAME(where)(~bits, h);
    }
    return word;
}
