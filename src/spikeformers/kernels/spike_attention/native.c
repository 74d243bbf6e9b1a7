/* Attention between bit-packed spikes, Q (K^T V) per head: see reference.py.
 *
 * K^T V counts the tokens at which two channels both fired: the bits of each channel are gathered over the tokens and two channels'
 * words are compared by population count. A token's result is the sum of the rows of K^T V at which its query fired.
 */
#include <stdint.h>
#include <string.h>
#include "../spike_conv/vectors.h"

typedef struct {
    const uint64_t *q, *k, *v;   /* [T, B, tokens, words] */
    void *out;                   /* counts [T, B, tokens, channels], channels contiguous, without gaps */
    char *scratch;               /* spike_attention_scratch() bytes per thread */
    int64_t maps, tokens, channels, words, heads;
    int32_t dtype, threads;
} AttentionCall;

enum { FLOAT32, FLOAT64 };

static int64_t padded(int64_t d) { return (d + 15) / 16 * 16; }

#define MOST ((int64_t)1 << 24) /* channels of a head, and tokens per channel: the scratch memory's size stays a number */

/* Whether the call makes sense in itself; that the arrays are as long as it says is for the caller to see to. */
static int makes_sense(const AttentionCall *c) {
    int64_t size, each;
    if (!c || c->threads < 1 || (c->dtype != FLOAT32 && c->dtype != FLOAT64) || c->maps < 0 || c->tokens < 0 || c->channels < 1) return 0;
    if (c->heads < 1 || c->channels % c->heads || c->channels / c->heads > MOST || c->words != (c->channels - 1) / 64 + 1) return 0;
    if (__builtin_mul_overflow(c->maps, c->tokens, &size) || __builtin_mul_overflow(size, c->channels * 8, &size)) return 0;
    return !__builtin_mul_overflow(c->tokens, c->channels / c->heads + 64, &each) && !__builtin_mul_overflow(c->maps, c->heads, &size);
}

/* Bytes of scratch memory for each thread: the bits of k and v by channel, and K^T V of one head; -1 for a call that makes no sense. */
int64_t spike_attention_scratch(const AttentionCall *c) {
    if (!makes_sense(c)) return -1;
    const int64_t d = c->channels / c->heads, blocks = (c->tokens + 63) / 64, rows = (d + 63) / 64 * 64;
    return (2 * rows * blocks * 8 + d * padded(d) * 8 + 127) / 64 * 64;
}

/* Up to 64 bits from bit `first` on. */
static inline uint64_t bits_from(const uint64_t *words, int64_t first, int64_t count) {
    const int64_t k = first / 64, shift = first % 64;
    uint64_t bits = words[k] >> shift;
    if (shift && shift + count > 64) bits |= words[k + 1] << (64 - shift);
    return count < 64 ? bits & (((uint64_t)1 << count) - 1) : bits;
}

/* Bit j of a[i] and bit i of a[j] change places: halves are swapped, then quarters of each, and so on. */
static void transpose(uint64_t a[64]) {
    uint64_t keep = 0x00000000ffffffffu;
    for (int width = 32; width; width >>= 1, keep ^= keep << width)
        for (int i = 0; i < 64; i = (i + width + 1) & ~width) {
            const uint64_t swap = ((a[i] >> width) ^ a[i + width]) & keep;
            a[i] ^= swap << width;
            a[i + width] ^= swap;
        }
}

/* The bits of d channels from `first` on, over all tokens: [d rounded up to 64][blocks of 64 tokens]. */
static void by_channel(const uint64_t *words, const AttentionCall *c, int64_t first, int64_t d, uint64_t *to) {
    const int64_t blocks = (c->tokens + 63) / 64;
    for (int64_t group = 0; group < d; group += 64) {
        const int64_t count = d - group < 64 ? d - group : 64;
        for (int64_t block = 0; block < blocks; block++) {
            uint64_t a[64] = {0};
            for (int64_t i = 0; i < 64 && block * 64 + i < c->tokens; i++)
                a[i] = bits_from(words + (block * 64 + i) * c->words, first + group, count);
            transpose(a);
            for (int64_t i = 0; i < 64; i++) to[(group + i) * blocks + block] = a[i];
        }
    }
}

#define PASTE_(a, b) a##_##b
#define PASTE(a, b) PASTE_(a, b)
#define NAME(f) PASTE(f, TYPE)
#define REAL float
#define TYPE f32
#include "passes.h"
#undef REAL
#undef TYPE
#define REAL double
#define TYPE f64
#include "passes.h"

/* Returns 0, or -1 for a call that makes no sense, of which nothing is done. */
int spike_attention(const AttentionCall *c) {
    if (!makes_sense(c) || !c->q || !c->k || !c->v || !c->out || !c->scratch || (uintptr_t)c->scratch % 64) return -1;
    const int64_t units = c->maps * c->heads, each = spike_attention_scratch(c);
    const int parts = units < c->threads ? (int)units : c->threads;
#pragma omp parallel for num_threads(parts) schedule(static, 1) if (parts > 1)
    for (int part = 0; part < parts; part++)
        for (int64_t unit = units * part / parts; unit < units * (part + 1) / parts; unit++) {
            if (c->dtype == FLOAT64) head_f64(c, unit / c->heads, unit % c->heads, c->scratch + part * each);
            else head_f32(c, unit / c->heads, unit % c->heads, c->scratch + part * each);
        }
    return 0;
}
