/* One head of native.c for one compute type, REAL with its short name TYPE. */
typedef REAL NAME(vec) __attribute__((vector_size(VB)));
#define LN ((int64_t)(VB / sizeof(REAL)))

/* The sums of `lanes` columns of the rows of K^T V at which the query fired. */
static inline __attribute__((always_inline)) void NAME(answer)(const REAL *both, int64_t wide, const uint64_t *query, int64_t first, int64_t d,
                                                               REAL *to, int64_t lanes, int NV) {
    NAME(vec) sum[64 / LN];
    for (int j = 0; j < NV; j++) sum[j] = (NAME(vec)){0};
    for (int64_t group = 0; group < d; group += 64) {
        uint64_t bits = bits_from(query, first + group, d - group < 64 ? d - group : 64);
        for (; bits; bits &= bits - 1) {
            const NAME(vec) *row = (const NAME(vec) *)(both + (group + __builtin_ctzll(bits)) * wide);
            for (int j = 0; j < NV; j++) sum[j] += row[j];
        }
    }
    memcpy(to, sum, lanes * sizeof(REAL));
}

static void NAME(head)(const AttentionCall *c, int64_t map, int64_t head, char *scratch) {
    const int64_t d = c->channels / c->heads, first = head * d, wide = padded(d), blocks = (c->tokens + 63) / 64;
    const int64_t rows = (d + 63) / 64 * 64, begin = map * c->tokens * c->words;
    REAL *both = (REAL *)scratch;
    uint64_t *k = (uint64_t *)(scratch + (d * wide * 8 + 63) / 64 * 64), *v = k + rows * blocks;
    by_channel(c->k + begin, c, first, d, k);
    by_channel(c->v + begin, c, first, d, v);
    memset(both, 0, d * wide * sizeof(REAL));
    for (int64_t i = 0; i < d; i++)
        for (int64_t j = 0; j < d; j++) {
            int64_t tokens = 0;
            for (int64_t n = 0; n < blocks; n++) tokens += __builtin_popcountll(k[i * blocks + n] & v[j * blocks + n]);
            both[i * wide + j] = (REAL)tokens;
        }
    for (int64_t n = 0; n < c->tokens; n++) {
        const uint64_t *query = c->q + begin + n * c->words;
        REAL *to = (REAL *)c->out + (map * c->tokens + n) * c->channels + first;
        for (int64_t column = 0; column < d; column += 64) {
            const int64_t lanes = d - column < 64 ? d - column : 64;
            switch ((lanes + 15) / 16) {
                case 1: NAME(answer)(both + column, wide, query, first, d, to + column, lanes, 16 / LN); break;
                case 2: NAME(answer)(both + column, wide, query, first, d, to + column, lanes, 32 / LN); break;
                case 3: NAME(answer)(both + column, wide, query, first, d, to + column, lanes, 48 / LN); break;
                default: NAME(answer)(both + column, wide, query, first, d, to + column, lanes, 64 / LN);
            }
        }
    }
}
#undef LN
