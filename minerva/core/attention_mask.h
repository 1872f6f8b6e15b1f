// Skips over masked cells for the CPU flash attention of the vendored ggml, which includes this header
// through vendor/llama.cpp/patches. In a unified KV cache most cells belong to other sequences: the mask
// says -inf for whole runs of them, and looking at them one by one costs more than the attention itself.
//
// Only raw bits are compared: what is skipped is what the stock kernel would have skipped, so results are
// bit-identical to it.
#pragma once

#include <stdint.h>

#if defined(__AVX512BW__) || defined(__AVX2__)
#include <immintrin.h>
#elif defined(__ARM_NEON)
#include <arm_neon.h>
#endif

#define MINERVA_F16_NEG_INF ((uint16_t) 0xFC00)

// True when the 16 half-precision values from m on are all -inf.
static inline bool minerva_masked_16(const uint16_t * m) {
#if defined(__AVX2__)
    const __m256i inf = _mm256_set1_epi16((short) MINERVA_F16_NEG_INF);
    const __m256i eq  = _mm256_cmpeq_epi16(_mm256_loadu_si256((const __m256i *) m), inf);
    return _mm256_movemask_epi8(eq) == -1;
#elif defined(__ARM_NEON)
    const uint16x8_t inf = vdupq_n_u16(MINERVA_F16_NEG_INF);
    const uint16x8_t eq  = vandq_u16(vceqq_u16(vld1q_u16(m), inf), vceqq_u16(vld1q_u16(m + 8), inf));
    const uint64x2_t all = vreinterpretq_u64_u16(eq);
    return (vgetq_lane_u64(all, 0) & vgetq_lane_u64(all, 1)) == ~(uint64_t) 0;
#else
    uint16_t differs = 0;
    for (int i = 0; i < 16; ++i) {
        differs |= (uint16_t) (m[i] ^ MINERVA_F16_NEG_INF);
    }
    return differs == 0;
#endif
}

// The first index in [begin, end) whose mask is not -inf, or end.
static inline int64_t minerva_next_unmasked(const void * mask, int64_t begin, int64_t end) {
    const uint16_t * m = (const uint16_t *) mask;
    int64_t i = begin;
    if (i < end && m[i] != MINERVA_F16_NEG_INF) {
        return i;
    }
    while (i + 16 <= end && minerva_masked_16(m + i)) {
        i += 16;
    }
    while (i < end && m[i] == MINERVA_F16_NEG_INF) {
        ++i;
    }
    return i;
}
