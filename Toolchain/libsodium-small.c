// Compiled into our libsodium.a by make-sdk, which points three of libsodium's names here so that
// the linker can drop what WireGuard never calls: 51 KB of Argon2, BLAKE2b and Salsa20, 11 KB of
// printf, and 37 KB of Ed25519 tables where the board asks for it.

#include <stdlib.h>

#include "crypto_scalarmult_curve25519.h"
#include "crypto_scalarmult/curve25519/scalarmult_curve25519.h"
#include "crypto_scalarmult/curve25519/ref10/x25519_ref10.h"

int sodium_small_keep_portable(void);
int sodium_small_base(unsigned char *point, const unsigned char *scalar);
_Noreturn void sodium_small_assert_fail(const char *, const char *, int, const char *);

/// Stands in sodium_init for the choice of a SIMD Argon2, BLAKE2b and Salsa20. Their portable
/// implementations, which are preset, stay in use: correct, slower, and linked only when called.
int sodium_small_keep_portable(void) { return 0; }

/// Stands for __assert_fail inside libsodium, whose message would bring in stdio.
_Noreturn void sodium_small_assert_fail(const char *expression, const char *file, int line,
                                        const char *function) {
    (void)expression, (void)file, (void)line, (void)function;
    abort();
}

/// X25519 with the base point by the ordinary ladder instead of a table. Constant time like it.
/// For boards where its 37 KB count for more than the time: without it key generation, and that of
/// the ephemeral key in a handshake, takes as long as any other exchange.
int sodium_small_base(unsigned char *point, const unsigned char *scalar) {
    static const unsigned char base[crypto_scalarmult_curve25519_BYTES] = {9};
    return crypto_scalarmult_curve25519_ref10_implementation.mult(point, scalar, base);
}
