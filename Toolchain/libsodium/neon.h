// Included by make-sdk in front of libsodium's SSE files on boards that have NEON instead. SIMDe, a
// Debian package of headers, implements each SSE instruction with NEON.

#ifndef CULVERT_LIBSODIUM_NEON_H
#define CULVERT_LIBSODIUM_NEON_H

// clang's own headers of these names are errors on ARM. These macros are their include guards.
#define __EMMINTRIN_H
#define __TMMINTRIN_H

#define SIMDE_ENABLE_NATIVE_ALIASES
#include <arm_neon.h>
#include <simde/x86/ssse3.h>

// ChaCha20 rotates words by 16 and by 8 bits with shuffles whose masks libsodium calls rot16 and
// rot8. NEON has an instruction for the first. The second takes two on 32-bit ARM either way, and
// the shifts need no mask in one of its sixteen registers.
static inline __m128i sodium_neon_rot16(__m128i words, __m128i mask) {
    (void)mask;
    return simde__m128i_from_neon_u16(vrev32q_u16(simde__m128i_to_neon_u16(words)));
}

static inline __m128i sodium_neon_rot8(__m128i words, __m128i mask) {
#ifdef __aarch64__
    return simde_mm_shuffle_epi8(words, mask);
#else
    (void)mask;
    const uint32x4_t whole = simde__m128i_to_neon_u32(words);
    return simde__m128i_from_neon_u32(vsriq_n_u32(vshlq_n_u32(whole, 8), whole, 24));
#endif
}

// libsodium reads the message with this, at any address. SIMDe promises the compiler that the
// address is a multiple of 8, and then a 32-bit ARM traps if it is not.
static inline __m128i sodium_neon_load8(const void *bytes) {
    return simde__m128i_from_neon_u8(vcombine_u8(vld1_u8(bytes), vdup_n_u8(0)));
}

#undef _mm_loadl_epi64
#define _mm_loadl_epi64(bytes) sodium_neon_load8(bytes)
#undef _mm_shuffle_epi8
#define _mm_shuffle_epi8(words, mask) sodium_neon_##mask(words, mask)

#endif
