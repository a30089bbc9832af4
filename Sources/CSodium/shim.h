// libsodium's functions for Swift: bytes are `void *`, so that raw pointers need no casts, and
// sizes are size_t. There are only casts here, and one function that Swift cannot express, which
// overwrites the stack.
#ifndef CSODIUM_SHIM_H
#define CSODIUM_SHIM_H

#include <sodium.h>
#include <stddef.h>
#include <stdint.h>

#pragma clang assume_nonnull begin

/// 0 on success, 1 if it was called before, -1 on failure.
static inline int csodium_init(void) {
  return sodium_init();
}

/// Closes the entropy source, which is a descriptor on Linux before 3.17.
static inline void csodium_close_source(void) {
  randombytes_close();
}

/// Opens it again.
static inline void csodium_open_source(void) {
  randombytes_stir();
}

static inline void csodium_wipe(void *bytes, size_t count) {
  sodium_memzero(bytes, count);
}

/// 0 if the bytes are equal. In constant time.
static inline int csodium_compare(const void *a, const void *b, size_t count) {
  return sodium_memcmp(a, b, count);
}

/// 1 if all bytes are zero. In constant time.
static inline int csodium_is_zero(const void *bytes, size_t count) {
  return sodium_is_zero((const unsigned char *)bytes, count);
}

/// Overwrites the stack below the caller's frame, where functions that have returned may have left
/// spilled registers. Not inlined, or its buffer would be inside the caller's frame.
static __attribute__((noinline, unused)) void csodium_burn_stack(void) {
  unsigned char burnt[2048];
  sodium_memzero(burnt, sizeof burnt);
}

static inline void csodium_random(void *bytes, size_t count) {
  randombytes_buf(bytes, count);
}

/// ChaCha20-Poly1305, RFC 8439: writes `count` bytes of ciphertext and a 16-byte tag to `output`,
/// which may be `text`. `nonce` has 12 bytes, `key` 32.
static inline void csodium_aead_seal(
    void *output, const void *text, size_t count,
    const void *_Nullable additional, size_t additional_count,
    const void *nonce, const void *key) {
  (void)crypto_aead_chacha20poly1305_ietf_encrypt(
      (unsigned char *)output, NULL, (const unsigned char *)text, count,
      (const unsigned char *)additional, additional_count, NULL,
      (const unsigned char *)nonce, (const unsigned char *)key);
}

/// The reverse: writes `count` bytes to `output`, which may be `message`. The 16-byte tag follows
/// the `count` bytes of the message. 0, or -1 on a wrong tag; `output` is then zeroed.
static inline int csodium_aead_open(
    void *output, const void *message, size_t count,
    const void *_Nullable additional, size_t additional_count,
    const void *nonce, const void *key) {
  return crypto_aead_chacha20poly1305_ietf_decrypt(
      (unsigned char *)output, NULL, NULL, (const unsigned char *)message,
      (unsigned long long)count + crypto_aead_chacha20poly1305_ietf_ABYTES,
      (const unsigned char *)additional, additional_count,
      (const unsigned char *)nonce, (const unsigned char *)key);
}

/// ChaCha20, RFC 8439: writes `count` bytes of `input` XOR the key stream, from block 0 on, to
/// `output`. `nonce` has 12 bytes, `key` 32.
static inline void csodium_chacha20(
    void *output, const void *input, size_t count, const void *nonce, const void *key) {
  (void)crypto_stream_chacha20_ietf_xor_ic(
      (unsigned char *)output, (const unsigned char *)input, count,
      (const unsigned char *)nonce, 0, (const unsigned char *)key);
}

/// Poly1305: writes 16 bytes to `tag`, which may lie within `bytes`, with a 32-byte one-time key.
static inline void csodium_poly1305(
    void *tag, const void *bytes, size_t count, const void *key) {
  (void)crypto_onetimeauth_poly1305(
      (unsigned char *)tag, (const unsigned char *)bytes, count, (const unsigned char *)key);
}

/// 0 if `tag` is the Poly1305 tag of the bytes, otherwise -1. In constant time.
static inline int csodium_poly1305_verify(
    const void *tag, const void *bytes, size_t count, const void *key) {
  return crypto_onetimeauth_poly1305_verify(
      (const unsigned char *)tag, (const unsigned char *)bytes, count,
      (const unsigned char *)key);
}

/// XChaCha20-Poly1305, as `csodium_aead_seal` with a nonce of 24 bytes.
static inline void csodium_xaead_seal(
    void *output, const void *text, size_t count,
    const void *_Nullable additional, size_t additional_count,
    const void *nonce, const void *key) {
  (void)crypto_aead_xchacha20poly1305_ietf_encrypt(
      (unsigned char *)output, NULL, (const unsigned char *)text, count,
      (const unsigned char *)additional, additional_count, NULL,
      (const unsigned char *)nonce, (const unsigned char *)key);
}

/// XChaCha20-Poly1305, as `csodium_aead_open` with a nonce of 24 bytes.
static inline int csodium_xaead_open(
    void *output, const void *message, size_t count,
    const void *_Nullable additional, size_t additional_count,
    const void *nonce, const void *key) {
  return crypto_aead_xchacha20poly1305_ietf_decrypt(
      (unsigned char *)output, NULL, NULL, (const unsigned char *)message,
      (unsigned long long)count + crypto_aead_xchacha20poly1305_ietf_ABYTES,
      (const unsigned char *)additional, additional_count,
      (const unsigned char *)nonce, (const unsigned char *)key);
}

/// X25519; each argument has 32 bytes. 0, or -1 for a point of low order; `output` is then
/// unspecified.
static inline int csodium_x25519(void *output, const void *secret, const void *point) {
  return crypto_scalarmult_curve25519(
      (unsigned char *)output, (const unsigned char *)secret, (const unsigned char *)point);
}

static inline void csodium_x25519_base(void *output, const void *secret) {
  (void)crypto_scalarmult_curve25519_base(
      (unsigned char *)output, (const unsigned char *)secret);
}

/// SipHash-2-4: writes 8 bytes to `output`, with a 16-byte key.
static inline void csodium_siphash(
    void *output, const void *bytes, size_t count, const void *key) {
  (void)crypto_shorthash_siphash24(
      (unsigned char *)output, (const unsigned char *)bytes, count, (const unsigned char *)key);
}

#pragma clang assume_nonnull end

#endif
