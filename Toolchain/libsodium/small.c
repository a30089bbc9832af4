// Compiled into our libsodium.a by make-sdk, which redirects three of libsodium's names to this
// file so that the linker can drop what WireGuard never calls: 51 KB of Argon2, BLAKE2b and
// Salsa20, 11 KB of printf, and, if the board's configuration asks for it, 37 KB of Ed25519 tables.

#include <stdlib.h>

#include "crypto_scalarmult_curve25519.h"
#include "crypto_scalarmult/curve25519/scalarmult_curve25519.h"
#include "crypto_scalarmult/curve25519/ref10/x25519_ref10.h"

int sodium_small_keep_portable(void);
int sodium_small_base(unsigned char *point, const unsigned char *scalar);
_Noreturn void sodium_small_assert_fail(const char *, const char *, int, const char *);

/// Replaces the selection of a SIMD Argon2, BLAKE2b and Salsa20 in sodium_init. Their portable
/// implementations, the defaults, stay in use: slower, and linked only when called.
int sodium_small_keep_portable(void) { return 0; }

/// Replaces __assert_fail in libsodium, whose message would pull in stdio.
_Noreturn void sodium_small_assert_fail(const char *expression, const char *file, int line,
                                        const char *function) {
    (void)expression, (void)file, (void)line, (void)function;
    abort();
}

/// X25519 of the base point with the ordinary ladder instead of a table; constant time like the
/// table. For boards that need the table's 37 KB more than the time: without it, generating a key,
/// also the ephemeral key of a handshake, takes as long as any other exchange.
int sodium_small_base(unsigned char *point, const unsigned char *scalar) {
    static const unsigned char base[crypto_scalarmult_curve25519_BYTES] = {9};
    return crypto_scalarmult_curve25519_ref10_implementation.mult(point, scalar, base);
}
