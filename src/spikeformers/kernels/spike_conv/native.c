/* Event-driven convolution of bit-packed spikes, with bias, residual and neuron: see reference.py for the equations.
 *
 * For every output pixel and time step the positions of the spikes that it sees become a list of weight rows; the rows are summed
 * with the sums of one tile of 64 channels in registers, over all T while the tile's potentials are there too, and what leaves is
 * one word of spikes. Weights lie in tiles, [tile][row][lanes], so that what one tile needs stays in the caches. It must be compiled with
 * -ffp-contract=off: a fused multiply-add would flip spikes.
 */
#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include "../lif/equation.h"
#include "vectors.h"

#define AHEAD 8         /* rows that are fetched while others are summed; lists have so much room behind their end */
#define BLOCK 48        /* output pixels at a time: their lists are made once for all tiles */

enum { NONE, SAME, BF16, INT8, DEPTHWISE };                      /* native.WEIGHTS */
enum { FLOAT32, FLOAT64 };                                       /* native.DTYPES */

typedef struct {
    double tau, v_threshold;
    int32_t mode, soft_reset;
} Neuron;

typedef struct {
    void *values;                                                /* [T, B, pixels, channels], channels contiguous, or NULL */
    int64_t t_stride, b_stride, pixel_stride;                    /* in numbers */
} Values;

typedef struct {
    const uint64_t *spikes;      /* [planes, T, B, height, width, in_words], or NULL with weights NONE */
    const void *weight;          /* [tile][kernel_height * kernel_width * channels][lanes]; depthwise [tile][taps][lanes]; 64 lanes but in the last tile */
    const void *scale;           /* [out_channels] of int8 weights */
    const void *bias;            /* [out_channels] or NULL */
    Values addend[2], out;       /* residual and accumulators to add; where the potentials go */
    uint64_t *fired;             /* spikes [T, B, out_height, out_width, out_words], or NULL: no neuron */
    const void *v;               /* potentials [B, pixels, out_channels] before the first step, or NULL: rest */
    void *v_out;                 /* and after the last, or NULL */
    int64_t *count;              /* spikes fired, one sum per thread */
    char *scratch;               /* spike_map_scratch() bytes per thread */
    int64_t planes, steps, batch, height, width, channels, in_words, out_height, out_width, out_channels, out_words;
    int64_t kernel_height, kernel_width, stride_height, stride_width, padding_height, padding_width;
    Neuron neuron;
    int32_t weights, dtype, threads;
} MapCall;

typedef struct {
    int64_t *start;              /* [pixels of a block * T + 1] */
    uint16_t *index;
} Lists;

#define INLINE static inline __attribute__((always_inline))
#define PASTE_(a, b) a##_##b
#define PASTE(a, b) PASTE_(a, b)
#define NAME(f) PASTE(f, TYPE)

/* From a word to the positions of its set bits, each plus base; up to 31 entries behind the last are overwritten. Returns the end. */
#if defined(__AVX512F__)
INLINE uint16_t *positions(uint64_t word, uint32_t base, uint16_t *to) {
    if (!word) return to;
    __m512i at = _mm512_add_epi32(_mm512_set1_epi32((int)base), _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15));
    for (int part = 0; part < 4; part++) {
        const __mmask16 bits = (__mmask16)(word >> (16 * part));
        _mm256_storeu_si256((__m256i *)to, _mm512_cvtepi32_epi16(_mm512_maskz_compress_epi32(bits, at)));
        to += __builtin_popcount(bits);
        at = _mm512_add_epi32(at, _mm512_set1_epi32(16));
    }
    return to;
}

/* The same twice as fast, for processors that have the instruction. */
#define VBMI2 __attribute__((target("avx512vbmi2")))
VBMI2 INLINE uint16_t *positions_vbmi2(uint64_t word, uint32_t base, uint16_t *to) {
    if (!word) return to;
    uint16_t first[32];
    for (int i = 0; i < 32; i++) first[i] = (uint16_t)i;
    const __m512i at = _mm512_add_epi16(_mm512_set1_epi16((short)base), _mm512_loadu_si512(first));
    const uint32_t low = (uint32_t)word, high = (uint32_t)(word >> 32);
    _mm512_storeu_si512(to, _mm512_maskz_compress_epi16(low, at));
    to += __builtin_popcount(low);
    _mm512_storeu_si512(to, _mm512_maskz_compress_epi16(high, _mm512_add_epi16(at, _mm512_set1_epi16(32))));
    return to + __builtin_popcount(high);
}
#else
INLINE uint16_t *positions(uint64_t word, uint32_t base, uint16_t *to) {
    for (; word; word &= word - 1) *to++ = (uint16_t)(base + (uint32_t)__builtin_ctzll(word));
    return to;
}
#endif

typedef uint16_t *Positions(uint64_t word, uint32_t base, uint16_t *to);

/* Bits that wait to be turned into positions: words of few channels are joined first, as many rows as a word has room for. */
typedef struct {
    uint64_t bits;
    int64_t fill;
    uint32_t base;               /* the row that bit 0 stands for */
} Joined;

INLINE uint16_t *join(Positions *positions, Joined *j, uint64_t word, int64_t length, uint16_t *to) {
    j->bits |= word << j->fill;
    const int64_t end = j->fill + length;
    if (end < 64) {
        j->fill = end;
        return to;
    }
    to = positions(j->bits, j->base, to);
    j->bits = j->fill ? word >> (64 - j->fill) : 0;
    j->fill = end - 64;
    j->base += 64;
    return to;
}

/* The weight rows that each of `count` output pixels from `from` on sums up, at every time step. */
INLINE void lists_with(Positions *positions, const MapCall *c, int64_t from, int64_t count, Lists *lists) {
    const int64_t pixels = c->out_height * c->out_width, plane = c->steps * c->batch * c->height * c->width * c->in_words;
    const int64_t last = c->channels - 64 * (c->in_words - 1);
    const uint64_t known = ~(uint64_t)0 >> (64 - last);                /* what is set behind the last channel is no spike */
    uint16_t *to = lists->index;
    for (int64_t p = 0; p < count; p++) {
        const int64_t at = from + p, b = at / pixels, pixel = at % pixels;
        const int64_t y0 = pixel / c->out_width * c->stride_height - c->padding_height;
        const int64_t x0 = pixel % c->out_width * c->stride_width - c->padding_width;
        const int64_t first_y = y0 < 0 ? -y0 : 0, last_y = c->height - y0 < c->kernel_height ? c->height - y0 : c->kernel_height;
        const int64_t first_x = x0 < 0 ? -x0 : 0, last_x = c->width - x0 < c->kernel_width ? c->width - x0 : c->kernel_width;
        for (int64_t t = 0; t < c->steps; t++) {
            lists->start[p * c->steps + t] = to - lists->index;
            const uint64_t *map = c->spikes + (t * c->batch + b) * c->height * c->width * c->in_words;
            for (int64_t q = 0; q < c->planes; q++)
                for (int64_t ky = first_y; ky < last_y; ky++) {
                    const uint64_t *words = map + q * plane + ((y0 + ky) * c->width + x0 + first_x) * c->in_words;
                    const uint32_t base = (uint32_t)((ky * c->kernel_width + first_x) * c->channels);
                    const int64_t row = (last_x - first_x) * c->in_words; /* none where no column of the kernel meets the map */
                    if (last == 64) {
                        for (int64_t k = 0; k < row; k++) to = positions(words[k], base + 64 * (uint32_t)k, to);
                        continue;
                    }
                    Joined joined = {0, 0, base};
                    for (int64_t kx = first_x; kx < last_x; kx++) {
                        for (int64_t k = 1; k < c->in_words; k++) to = join(positions, &joined, *words++, 64, to);
                        to = join(positions, &joined, *words++ & known, last, to);
                    }
                    if (joined.fill) to = positions(joined.bits, joined.base, to);
                }
        }
    }
    lists->start[count * c->steps] = to - lists->index;
}

#if defined(__AVX512F__)
VBMI2 static void lists_vbmi2(const MapCall *c, int64_t from, int64_t count, Lists *lists) { lists_with(positions_vbmi2, c, from, count, lists); }
#endif

static void make_lists(const MapCall *c, int64_t from, int64_t count, Lists *lists) {
#if defined(__AVX512F__)
    if (__builtin_cpu_supports("avx512vbmi2")) {
        lists_vbmi2(c, from, count, lists);
        return;
    }
#endif
    lists_with(positions, c, from, count, lists);
}

/* Whether the sizes are none below 0 and their product, in bytes, is a number. */
static int countable(int count, const int64_t *sizes) {
    int64_t product = 8;
    for (int i = 0; i < count; i++)
        if (sizes[i] < 0 || __builtin_mul_overflow(product, sizes[i] ? sizes[i] : 1, &product)) return 0;
    return 1;
}
#define COUNTABLE(...) countable(sizeof((int64_t[]){__VA_ARGS__}) / 8, (int64_t[]){__VA_ARGS__})
#define MOST (1 << 20)       /* of kernels, strides and paddings: sums of their products stay numbers */

static int fits(int64_t size, int64_t kernel, int64_t stride, int64_t padding, int64_t out) {
    if (kernel < 1 || stride < 1 || padding < 0 || kernel > MOST || stride > MOST || padding > MOST || size > INT64_MAX / 4) return 0;
    return out == (size + 2 * padding < kernel ? 0 : (size + 2 * padding - kernel) / stride + 1);
}

/* Whether the call makes sense in itself; that the arrays are as long as it says is for the caller to see to. */
static int makes_sense(const MapCall *c) {
    if (!c || c->threads < 1 || c->dtype < FLOAT32 || c->dtype > FLOAT64 || c->weights < NONE || c->weights > DEPTHWISE) return 0;
    if (!COUNTABLE(c->steps, c->batch, c->out_height, c->out_width, c->out_channels) || c->out_words != (c->out_channels + 63) / 64) return 0;
    if (c->fired && (!KNOWN_INTEGRATION(c->neuron.mode) || (c->neuron.soft_reset & ~1))) return 0;
    if (c->weights == NONE) return 1;
    if (!c->spikes || !c->weight || (c->weights == INT8 && !c->scale) || (c->dtype == FLOAT64 && (c->weights == BF16 || c->weights == INT8))) return 0;
    if (!COUNTABLE(c->planes, c->steps, c->batch, c->height, c->width, c->channels) || c->channels < 1 || c->in_words != (c->channels + 63) / 64) return 0;
    if (!fits(c->height, c->kernel_height, c->stride_height, c->padding_height, c->out_height)) return 0;
    if (!fits(c->width, c->kernel_width, c->stride_width, c->padding_width, c->out_width)) return 0;
    if (c->weights == DEPTHWISE) return c->channels == c->out_channels;
    return c->channels <= 65535 && c->kernel_height * c->kernel_width <= 65535 / c->channels && /* rows that an index can name */
           COUNTABLE(c->planes, c->steps, c->channels, c->kernel_height, c->kernel_width, BLOCK);
}

/* Output pixels at a time: as many as keep the lists within four megabytes, at most BLOCK. */
static int64_t block_of(const MapCall *c) {
    if (c->weights == NONE || c->weights == DEPTHWISE) return BLOCK;
    const int64_t each = c->steps * c->planes * c->kernel_height * c->kernel_width * c->channels * 2;
    const int64_t fit = (4 << 20) / (each ? each : 1);
    return fit < 1 ? 1 : fit > BLOCK ? BLOCK : fit;
}

/* Bytes of scratch memory for each thread; -1 for a call that makes no sense. */
int64_t spike_map_scratch(const MapCall *c) {
    if (!makes_sense(c)) return -1;
    const int64_t block = block_of(c), starts = (block * c->steps + 1) * 8;
    const int lists = c->weights != NONE && c->weights != DEPTHWISE;
    const int64_t entries = lists ? block * c->steps * c->planes * c->kernel_height * c->kernel_width * c->channels + 32 : 0;
    return (starts + entries * 2 + 191) / 64 * 64;
}

#define REAL float
#define TYPE f32
#define WIDE int32_t
#define HALVES 1
#include "lanes.h"

typedef int8_t bytes_16 __attribute__((vector_size(16), may_alias)), bytes_32 __attribute__((vector_size(32), may_alias, aligned(16)));
typedef int16_t shorts_16 __attribute__((vector_size(32))), shorts_32 __attribute__((vector_size(64)));
typedef uint16_t halves __attribute__((vector_size(VB / 2), may_alias));
typedef uint32_t wholes __attribute__((vector_size(VB)));
#define SURE 256        /* so many int8 numbers always fit into an int16 sum */
#define PAIRS (VB == 64) /* whether 32 lanes of int16 are one vector */

/* Rows as wider lanes. Intrinsics where there are any: GCC converts vectors in halves. */
#if defined(__AVX512F__)
INLINE shorts_32 shorts_of_32(const int8_t *row) { return (shorts_32)_mm512_cvtepi8_epi16(_mm256_loadu_si256((const __m256i *)row)); }
INLINE vec_f32 floats_of(const uint16_t *row) {
    return (vec_f32)_mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i *)row)), 16);
}
#else
INLINE shorts_32 shorts_of_32(const int8_t *row) { return __builtin_convertvector(*(const bytes_32 *)row, shorts_32); }
#if defined(__AVX2__)
INLINE vec_f32 floats_of(const uint16_t *row) { return (vec_f32)_mm256_slli_epi32(_mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i *)row)), 16); }
#else
INLINE vec_f32 floats_of(const uint16_t *row) { return (vec_f32)(__builtin_convertvector(*(const halves *)row, wholes) << 16); }
#endif
#endif
#if defined(__AVX2__)
INLINE shorts_16 shorts_of_16(const int8_t *row) { return (shorts_16)_mm256_cvtepi8_epi16(_mm_loadu_si128((const __m128i *)row)); }
#else
INLINE shorts_16 shorts_of_16(const int8_t *row) { return __builtin_convertvector(*(const bytes_16 *)row, shorts_16); }
#endif

/* Sums of int8 rows, as floats; `quarters` is the row's width in units of 16 lanes. */
INLINE void gather_int8(const int8_t *restrict w, const uint16_t *restrict index, int64_t n, vec_f32 *acc, int quarters) {
    int32_t total[64] __attribute__((aligned(64))) = {0};
    float all[64] __attribute__((aligned(64)));
    for (int64_t i = 0; i < n;) {
        const int64_t end = n - i > SURE ? i + SURE : n;
        shorts_32 pair[2] = {{0}, {0}};
        shorts_16 one[4] = {{0}, {0}, {0}, {0}};
        for (; i < end; i++) {
            const int8_t *row = w + (int64_t)index[i] * (quarters * 16);
            __builtin_prefetch(w + (int64_t)index[i + AHEAD] * (quarters * 16));
            for (int j = 0; PAIRS && j < quarters / 2; j++) pair[j] += shorts_of_32(row + j * 32);
            for (int j = PAIRS ? quarters / 2 * 2 : 0; j < quarters; j++) one[j] += shorts_of_16(row + j * 16);
        }
        int16_t sums[64];
        memcpy(sums, one, sizeof sums);
        if (PAIRS) memcpy(sums, pair, quarters / 2 * 64);
        for (int j = 0; j < quarters * 16; j++) total[j] += sums[j];
    }
    for (int j = 0; j < quarters * 16; j++) all[j] = (float)total[j];
    memcpy(acc, all, quarters * 64);
}

INLINE void gather_bf16(const uint16_t *restrict w, const uint16_t *restrict index, int64_t n, vec_f32 *acc, int NV) {
    for (int64_t i = 0; i < n; i++) {
        const uint16_t *row = w + (int64_t)index[i] * (NV * LN);
        const char *ahead = (const char *)(w + (int64_t)index[i + AHEAD] * (NV * LN));
        for (int j = 0; j < NV * VB / 2; j += 64) __builtin_prefetch(ahead + j);
        for (int j = 0; j < NV; j++) acc[j] += floats_of(row + j * LN);
    }
}

#include "passes.h"
#undef REAL
#undef TYPE
#undef WIDE
#undef HALVES
#define REAL double
#define TYPE f64
#define WIDE int64_t
#define HALVES 0
#include "lanes.h"
#include "passes.h"

static int at_most(int64_t wanted, int most) { return wanted < most ? (int)wanted : most; }

/* Potentials, and the spikes of neurons if c->fired. Returns 0, or -1 for a call that makes no sense, of which nothing is done. */
int spike_map(const MapCall *call) {
    if (!makes_sense(call) || !call->scratch || (uintptr_t)call->scratch % 64) return -1;
    const int64_t total = call->batch * call->out_height * call->out_width, block = block_of(call);
    const int64_t blocks = (total + block - 1) / block, tiles = (call->out_channels + 63) / 64;
    const int64_t scratch = spike_map_scratch(call);
    const int lists_needed = call->weights != NONE && call->weights != DEPTHWISE;
    /* Threads share the pixels, or, where those are few and the weights many, the tiles: then each makes its own lists. */
    const int by_tile = lists_needed && blocks < call->threads && tiles > blocks;
    const int parts = at_most(by_tile ? tiles : blocks, call->threads);
    MapCall copy = *call;
    copy.neuron.mode = mode_of(copy.neuron.mode, copy.neuron.tau);
#pragma omp parallel for num_threads(parts) schedule(static, 1) if (parts > 1)
    for (int part = 0; part < parts; part++) {
        const MapCall *c = &copy;
        char *mine = c->scratch + part * scratch;
        Lists lists = {(int64_t *)mine, (uint16_t *)(mine + (block * c->steps + 1) * 8)};
        int64_t spikes = 0;
        memset(lists.start, 0, (block * c->steps + 1) * 8);
        const int64_t first_tile = by_tile ? tiles * part / parts : 0, last_tile = by_tile ? tiles * (part + 1) / parts : tiles;
        const int64_t first = by_tile ? 0 : blocks * part / parts, last = by_tile ? blocks : blocks * (part + 1) / parts;
        for (int64_t i = first; i < last; i++) {
            const int64_t from = i * block, count = total - from < block ? total - from : block;
            if (lists_needed) make_lists(c, from, count, &lists);
            for (int64_t tile = first_tile; tile < last_tile; tile++) {
                const int64_t lanes = c->out_channels - tile * 64 < 64 ? c->out_channels - tile * 64 : 64;
                if (c->dtype == FLOAT64) any_f64(c, from, count, tile, &lists, &spikes, (int)((lanes + 15) / 16));
                else any_f32(c, from, count, tile, &lists, &spikes, (int)((lanes + 15) / 16));
            }
        }
        if (c->count) c->count[part] = spikes;
    }
    if (call->count)
        for (int part = parts; part < call->threads; part++) call->count[part] = 0;
    return 0;
}

typedef struct {
    const uint64_t *spikes;      /* [planes, maps, height, width, words] */
    void *out;                   /* [maps, height, width, channels], or words [maps, out_height, out_width, words] */
    int64_t planes, maps, height, width, channels, words, out_height, out_width, kernel, stride, padding;
    int32_t dtype, threads;
} BitsCall;

static int64_t words_for(int64_t channels) { return channels < 1 ? 0 : (channels - 1) / 64 + 1; }

static int bits_make_sense(const BitsCall *c, int64_t words) {
    return c && c->threads >= 1 && (c->dtype == FLOAT32 || c->dtype == FLOAT64) && c->words == words &&
           COUNTABLE(c->planes, c->maps, c->height, c->width, c->words) && COUNTABLE(c->maps, c->height, c->width, c->channels);
}

/* Spikes as numbers: the sum over planes. Returns 0, or -1 for a call that makes no sense. */
int spike_unpack(const BitsCall *c) {
    if (!c || !bits_make_sense(c, words_for(c->channels)) || !c->spikes || !c->out) return -1;
    const int64_t pixels = c->maps * c->height * c->width, plane = pixels * c->words;
    const int parts = pixels * c->channels < 32768 ? 1 : c->threads;
#pragma omp parallel for num_threads(parts) schedule(static) if (parts > 1)
    for (int64_t p = 0; p < pixels; p++)
        for (int64_t k = 0; k < c->words; k++) {
            const int lanes = c->channels - k * 64 < 64 ? (int)(c->channels - k * 64) : 64;
            if (c->dtype == FLOAT64) expand_f64(c->spikes + p * c->words + k, plane, c->planes, (double *)c->out + p * c->channels + k * 64, lanes);
            else expand_f32(c->spikes + p * c->words + k, plane, c->planes, (float *)c->out + p * c->channels + k * 64, lanes);
        }
    return 0;
}

/* Signed whole numbers [pixels, channels] as bits: plane q says where a number is above q, in the first half of the words, and where it is
 * below -q, in the second. Returns the sum of their magnitudes, as far as there are planes, or -1 for a call that makes no sense. */
int64_t spike_pack(const BitsCall *c, const void *numbers, uint64_t *to) {
    if (!c || !bits_make_sense(c, 2 * words_for(c->channels)) || !numbers || !to) return -1;
    const int64_t pixels = c->maps * c->height * c->width, half = c->words / 2;
    const int parts = pixels * c->channels < 32768 ? 1 : c->threads;
    int64_t units = 0;
#pragma omp parallel for num_threads(parts) schedule(static) reduction(+ : units) if (parts > 1)
    for (int64_t p = 0; p < pixels; p++)
        for (int64_t q = 0; q < c->planes; q++)
            for (int64_t k = 0; k < half; k++) {
                const int lanes = c->channels - k * 64 < 64 ? (int)(c->channels - k * 64) : 64;
                uint64_t *word = to + (q * pixels + p) * c->words + k;
                if (c->dtype == FLOAT64) collect_f64((const double *)numbers + p * c->channels + k * 64, lanes, (double)(q + 1), word, word + half);
                else collect_f32((const float *)numbers + p * c->channels + k * 64, lanes, (float)(q + 1), word, word + half);
                units += __builtin_popcountll(word[0]) + __builtin_popcountll(word[half]);
            }
    return units;
}

/* Maximum over windows of one plane: whether any of a window's pixels fired. Returns how many windows and channels did, or
 * -1 for a call that makes no sense. */
int64_t spike_pool(const BitsCall *c) {
    if (!c || !bits_make_sense(c, words_for(c->channels)) || c->planes != 1 || c->channels < 1 || !c->spikes || !c->out) return -1;
    if (!fits(c->height, c->kernel, c->stride, c->padding, c->out_height) || !fits(c->width, c->kernel, c->stride, c->padding, c->out_width)) return -1;
    if (!COUNTABLE(c->maps, c->out_height, c->out_width, c->words)) return -1;
    const uint64_t known = ~(uint64_t)0 >> (c->words * 64 - c->channels);
    const int64_t pixels = c->maps * c->out_height * c->out_width;
    const int parts = pixels * c->words < 4096 ? 1 : c->threads;
    int64_t fired = 0;
#pragma omp parallel for num_threads(parts) schedule(static) reduction(+ : fired) if (parts > 1)
    for (int64_t p = 0; p < pixels; p++) {
        const int64_t map = p / (c->out_height * c->out_width), pixel = p % (c->out_height * c->out_width);
        const int64_t y0 = pixel / c->out_width * c->stride - c->padding, x0 = pixel % c->out_width * c->stride - c->padding;
        uint64_t *to = (uint64_t *)c->out + p * c->words;
        memset(to, 0, c->words * 8);
        for (int64_t y = y0 < 0 ? 0 : y0; y < y0 + c->kernel && y < c->height; y++)
            for (int64_t x = x0 < 0 ? 0 : x0; x < x0 + c->kernel && x < c->width; x++)
                for (int64_t k = 0; k < c->words; k++) to[k] |= c->spikes[((map * c->height + y) * c->width + x) * c->words + k];
        to[c->words - 1] &= known;
        for (int64_t k = 0; k < c->words; k++) fired += __builtin_popcountll(to[k]);
    }
    return fired;
}
