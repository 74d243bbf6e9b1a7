/* The passes of native.c for one compute type; see there. */

/* Sums of weight rows [lanes], one for every entry of `index`. Two sets of sums where one would wait for itself; wide rows are fetched
 * ahead, as they come from afar. */
INLINE void NAME(gather)(const REAL *restrict w, const uint16_t *restrict index, int64_t n, NAME(vec) *acc, int NV) {
    int64_t i = 0;
    if (NV * VB <= 128) {
        NAME(vec) second[64 / LN];
        for (int j = 0; j < NV; j++) second[j] = (NAME(vec)){0};
        for (; i + 1 < n; i += 2) {
            const NAME(vec) *a = (const NAME(vec) *)(w + (int64_t)index[i] * (NV * LN));
            const NAME(vec) *b = (const NAME(vec) *)(w + (int64_t)index[i + 1] * (NV * LN));
            for (int j = 0; j < NV; j++) acc[j] += a[j];
            for (int j = 0; j < NV; j++) second[j] += b[j];
        }
        for (int j = 0; j < NV; j++) acc[j] += second[j];
        if (i < n) {
            const NAME(vec) *last = (const NAME(vec) *)(w + (int64_t)index[i] * (NV * LN));
            for (int j = 0; j < NV; j++) acc[j] += last[j];
        }
        return;
    }
    for (; i < n; i++) {
        const NAME(vec) *a = (const NAME(vec) *)(w + (int64_t)index[i] * (NV * LN));
        const char *ahead = (const char *)(w + (int64_t)index[i + AHEAD] * (NV * LN));
        for (int j = 0; j < NV * VB; j += 64) __builtin_prefetch(ahead + j);
        for (int j = 0; j < NV; j++) acc[j] += a[j];
    }
}

/* Sums of depthwise weights [taps, lanes] wherever the channel fired, for one output pixel and time step. */
INLINE void NAME(masked)(const MapCall *c, const REAL *restrict w, const uint64_t *words, int64_t y0, int64_t x0, NAME(vec) *acc,
                         int NV) {
    const int64_t plane = c->steps * c->batch * c->height * c->width * c->in_words;
    const int64_t first_y = y0 < 0 ? -y0 : 0, last_y = c->height - y0 < c->kernel_height ? c->height - y0 : c->kernel_height;
    const int64_t first_x = x0 < 0 ? -x0 : 0, last_x = c->width - x0 < c->kernel_width ? c->width - x0 : c->kernel_width;
    for (int64_t q = 0; q < c->planes; q++)
        for (int64_t ky = first_y; ky < last_y; ky++) {
            const uint64_t *word = words + q * plane + ((y0 + ky) * c->width + x0 + first_x) * c->in_words;
            const REAL *row = w + (ky * c->kernel_width + first_x) * (NV * LN);
            for (int64_t kx = first_x; kx < last_x; kx++, word += c->in_words, row += NV * LN) {
                const uint64_t bits = *word;
                for (int j = 0; j < NV; j++) acc[j] = NAME(add_where)(bits >> (j * LN), acc[j], ((const NAME(vec) *)row)[j]);
            }
        }
}

/* Sums of whatever kind of weights, without bias. */
INLINE void NAME(sum)(const MapCall *c, const char *slab, const NAME(vec) *scale __attribute__((unused)), const uint16_t *index, int64_t length,
                      const uint64_t *words, int64_t y0, int64_t x0, NAME(vec) *to, int NV, int weights) {
    NAME(vec) acc[64 / LN];
    for (int j = 0; j < NV; j++) acc[j] = (NAME(vec)){0};
    if (weights == SAME) NAME(gather)((const REAL *)slab, index, length, acc, NV);
    if (weights == DEPTHWISE) NAME(masked)(c, (const REAL *)slab, words, y0, x0, acc, NV);
#if HALVES
    if (weights == BF16) gather_bf16((const uint16_t *)slab, index, length, acc, NV);
    if (weights == INT8) {
        gather_int8((const int8_t *)slab, index, length, acc, NV * LN / 16);
        for (int j = 0; j < NV; j++) acc[j] *= scale[j];
    }
#endif
    for (int j = 0; j < NV; j++) to[j] = acc[j];
}

/* One tile of channels of `count` pixels from `from` on, all time steps. */
INLINE void NAME(tile)(const MapCall *c, int64_t from, int64_t count, int64_t tile, const Lists *lists, int64_t *spikes, int NV) {
    const int64_t first = tile * 64, pixels = c->out_height * c->out_width;
    const int lanes = c->out_channels - first < 64 ? (int)(c->out_channels - first) : 64;
    NAME(vec) bias[64 / LN], scale[64 / LN], v[64 / LN], acc[64 / LN], more[64 / LN];
    for (int j = 0; j < NV; j++) bias[j] = scale[j] = (NAME(vec)){0};
    if (c->bias) NAME(get)((const REAL *)c->bias + first, lanes, bias, NV);
    if (c->scale) NAME(get)((const REAL *)c->scale + first, lanes, scale, NV);
    const int64_t rows = c->kernel_height * c->kernel_width * (c->weights == DEPTHWISE ? 1 : c->channels);
    const int64_t each = c->weights == BF16 ? 2 : c->weights == INT8 ? 1 : (int64_t)sizeof(REAL);
    const char *slab = c->weights == NONE ? NULL : (const char *)c->weight + first * rows * each;
    int64_t fired = 0;
    for (int64_t p = 0; p < count; p++) {
        const int64_t at = from + p, b = at / pixels, pixel = at % pixels;
        const int64_t y0 = pixel / c->out_width * c->stride_height - c->padding_height;
        const int64_t x0 = pixel % c->out_width * c->stride_width - c->padding_width;
        if (c->fired && c->v) NAME(get)((const REAL *)c->v + at * c->out_channels + first, lanes, v, NV);
        else for (int j = 0; j < NV; j++) v[j] = (NAME(vec)){0};
        for (int64_t t = 0; t < c->steps; t++) {
            const int64_t row = p * c->steps + t, start = lists->start[row], length = lists->start[row + 1] - start;
            const uint64_t *words = c->weights == DEPTHWISE ? c->spikes + ((t * c->batch + b) * c->height * c->width) * c->in_words + tile : NULL;
            switch (c->weights) {
                case SAME: NAME(sum)(c, slab, scale, lists->index + start, length, words, y0, x0, acc, NV, SAME); break;
                case DEPTHWISE: NAME(sum)(c, slab, scale, NULL, 0, words, y0, x0, acc, NV, DEPTHWISE); break;
                case BF16: NAME(sum)(c, slab, scale, lists->index + start, length, words, y0, x0, acc, NV, BF16); break;
                case INT8: NAME(sum)(c, slab, scale, lists->index + start, length, words, y0, x0, acc, NV, INT8); break;
                default: for (int j = 0; j < NV; j++) acc[j] = (NAME(vec)){0};
            }
            for (int j = 0; j < NV; j++) acc[j] += bias[j];
            for (int a = 0; a < 2; a++) {
                if (!c->addend[a].values) continue;
                NAME(get)(NAME(place)(&c->addend[a], t, b, pixel) + first, lanes, more, NV);
                for (int j = 0; j < NV; j++) acc[j] += more[j];
            }
            if (c->out.values) NAME(put)(NAME(place)(&c->out, t, b, pixel) + first, lanes, acc, NV);
            if (c->fired) {
                uint64_t word = NAME(step)(&c->neuron, acc, v, NV);
                if (lanes < 64) word &= ((uint64_t)1 << lanes) - 1;
                c->fired[((t * c->batch + b) * pixels + pixel) * c->out_words + tile] = word;
                fired += __builtin_popcountll(word);
            }
        }
        if (c->fired && c->v_out) NAME(put)((REAL *)c->v_out + at * c->out_channels + first, lanes, v, NV);
    }
    *spikes += fired;
}

/* `tile` with its width as a constant; `quarters` is that width in units of 16 lanes. */
static void NAME(any)(const MapCall *c, int64_t from, int64_t count, int64_t tile, const Lists *lists, int64_t *spikes, int quarters) {
    switch (quarters) {
        case 1: NAME(tile)(c, from, count, tile, lists, spikes, 16 / LN); break;
        case 2: NAME(tile)(c, from, count, tile, lists, spikes, 32 / LN); break;
        case 3: NAME(tile)(c, from, count, tile, lists, spikes, 48 / LN); break;
        default: NAME(tile)(c, from, count, tile, lists, spikes, 64 / LN);
    }
}

/* `lanes` channels of one pixel as numbers. */
static void NAME(expand)(const uint64_t *word, int64_t plane, int64_t planes, REAL *to, int lanes) {
    NAME(vec) sum[64 / LN];
    for (int j = 0; j < 64 / LN; j++) sum[j] = (NAME(vec)){0};
    for (int64_t q = 0; q < planes; q++)
        for (int j = 0; j < 64 / LN; j++) sum[j] = NAME(add_where)(word[q * plane] >> (j * LN), sum[j], 1 - (NAME(vec)){0});
    NAME(put)(to, lanes, sum, 64 / LN);
}

/* The bits of `lanes` channels whose number is at least `level`, and of those that are at most -level. */
static void NAME(collect)(const REAL *from, int lanes, REAL level, uint64_t *above, uint64_t *below) {
    NAME(vec) x[64 / LN];
    NAME(get)(from, lanes, x, 64 / LN);
    *above = *below = 0;
    for (int j = 0; j < 64 / LN; j++) {
        *above |= NAME(fired)(x[j], level) << (j * LN);
        *below |= NAME(fired)(-x[j], level) << (j * LN);
    }
}
#undef LN
