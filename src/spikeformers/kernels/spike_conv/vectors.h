/* Bytes of a vector of this instruction set. */
#if defined(__AVX512F__)
#include <immintrin.h>
#define VB 64
#elif defined(__AVX2__)
#include <immintrin.h>
#define VB 32
#else
#define VB 16
#endif
