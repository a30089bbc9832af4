"""The primitives, written from their specifications, without regard to speed.

Nothing here uses libsodium, OpenSSL or Culvert: only hashlib's BLAKE2s, and whole numbers.
"""

import hashlib
import hmac
import struct

WORD = 0xFFFFFFFF
LONG = 0xFFFFFFFFFFFFFFFF


class Random:
    """SplitMix64 (Steele, Lea, Flood 2014)."""

    def __init__(self, seed: int) -> None:
        self.state = seed

    def word(self) -> int:
        self.state = (self.state + 0x9E3779B97F4A7C15) & LONG
        word = self.state
        word = ((word ^ word >> 30) * 0xBF58476D1CE4E5B9) & LONG
        word = ((word ^ word >> 27) * 0x94D049BB133111EB) & LONG
        return word ^ word >> 31

    def below(self, bound: int) -> int:
        """For powers of two."""
        return self.word() & (bound - 1)

    def bytes(self, count: int) -> bytes:
        return b"".join(struct.pack("<Q", self.word()) for _ in range((count + 7) // 8))[:count]


# --- hashes


def blake2s(data: bytes, size: int = 32, key: bytes = b"") -> bytes:
    return hashlib.blake2s(data, digest_size=size, key=key).digest()


def hmac_blake2s(key: bytes, data: bytes) -> bytes:
    return hmac.new(key, data, hashlib.blake2s).digest()


def hkdf(chaining_key: bytes, data: bytes, count: int) -> list[bytes]:
    """RFC 5869 without info: the first outputs."""
    secret, outputs = hmac_blake2s(chaining_key, data), [b""]
    for number in range(1, count + 1):
        outputs.append(hmac_blake2s(secret, outputs[-1] + bytes([number])))
    return outputs[1:]


def siphash(key: bytes, data: bytes) -> int:
    """SipHash-2-4."""
    k0, k1 = struct.unpack("<QQ", key)
    v = [k0 ^ 0x736F6D6570736575, k1 ^ 0x646F72616E646F6D]
    v += [k0 ^ 0x6C7967656E657261, k1 ^ 0x7465646279746573]

    def turn(word: int, count: int) -> int:
        return (word << count | word >> (64 - count)) & LONG

    def rounds(count: int) -> None:
        for _ in range(count):
            for a, b, c, d, left, right in ((0, 1, 2, 3, 13, 16), (2, 1, 0, 3, 17, 21)):
                v[a] = (v[a] + v[b]) & LONG
                v[c] = (v[c] + v[d]) & LONG
                v[b] = turn(v[b], left) ^ v[a]
                v[d] = turn(v[d], right) ^ v[c]
                v[a] = turn(v[a], 32)

    padded = data + bytes(7 - len(data) % 8) + bytes([len(data) & 255])
    for (word,) in struct.iter_unpack("<Q", padded):
        v[3] ^= word
        rounds(2)
        v[0] ^= word
    v[2] ^= 0xFF
    rounds(4)
    return v[0] ^ v[1] ^ v[2] ^ v[3]


# --- X25519 (RFC 7748 section 5)

PRIME = 2**255 - 19
BASE = bytes([9]) + bytes(31)


def x25519(scalar: bytes, point: bytes) -> bytes:
    k = int.from_bytes(scalar, "little") & ~7 & (1 << 255) - 1 | 1 << 254
    x1 = (int.from_bytes(point, "little") & (1 << 255) - 1) % PRIME
    x2, z2, x3, z3, swap = 1, 0, x1, 1, 0
    for bit in reversed(range(255)):
        if swap ^ (k >> bit & 1):
            x2, x3, z2, z3 = x3, x2, z3, z2
        swap = k >> bit & 1
        a, b = x2 + z2, x2 - z2
        aa, bb = a * a % PRIME, b * b % PRIME
        da, cb = (x3 - z3) * a % PRIME, (x3 + z3) * b % PRIME
        x3, z3 = (da + cb) ** 2 % PRIME, x1 * (da - cb) ** 2 % PRIME
        x2, z2 = aa * bb % PRIME, (aa - bb) * (aa + 121665 * (aa - bb)) % PRIME
    if swap:
        x2, z2 = x3, z3
    return (x2 * pow(z2, PRIME - 2, PRIME) % PRIME).to_bytes(32, "little")


# --- ChaCha20-Poly1305 (RFC 8439) and XChaCha20 (draft-irtf-cfrg-xchacha-03)

CONSTANTS = (0x61707865, 0x3320646E, 0x79622D32, 0x6B206574)


def chacha_rounds(x: list[int]) -> list[int]:
    """Twenty rounds, without the addition at the end."""
    x = list(x)
    for _ in range(10):
        for a, b, c, d in (
            *((0, 4, 8, 12), (1, 5, 9, 13), (2, 6, 10, 14), (3, 7, 11, 15)),
            *((0, 5, 10, 15), (1, 6, 11, 12), (2, 7, 8, 13), (3, 4, 9, 14)),
        ):
            xa, xb, xc, xd = x[a], x[b], x[c], x[d]
            xa = (xa + xb) & WORD
            xd ^= xa
            xd = (xd << 16 | xd >> 16) & WORD
            xc = (xc + xd) & WORD
            xb ^= xc
            xb = (xb << 12 | xb >> 20) & WORD
            xa = (xa + xb) & WORD
            xd ^= xa
            xd = (xd << 8 | xd >> 24) & WORD
            xc = (xc + xd) & WORD
            xb ^= xc
            xb = (xb << 7 | xb >> 25) & WORD
            x[a], x[b], x[c], x[d] = xa, xb, xc, xd
    return x


def chacha20(key: bytes, nonce: bytes, count: int, first: int) -> bytes:
    """`count` bytes of stream from block `first` on."""
    start = [*CONSTANTS, *struct.unpack("<8I", key), first, *struct.unpack("<3I", nonce)]
    stream = b""
    while len(stream) < count:
        block = chacha_rounds(start)
        stream += struct.pack("<16I", *((a + b) & WORD for a, b in zip(block, start)))
        start[12] += 1
    return stream[:count]


def hchacha20(key: bytes, nonce: bytes) -> bytes:
    x = chacha_rounds([*CONSTANTS, *struct.unpack("<8I", key), *struct.unpack("<4I", nonce)])
    return struct.pack("<8I", *x[:4], *x[12:])


def poly1305(key: bytes, data: bytes) -> bytes:
    r = int.from_bytes(key[:16], "little") & 0x0FFFFFFC0FFFFFFC0FFFFFFC0FFFFFFF
    total = 0
    for start in range(0, len(data), 16):
        block = data[start : start + 16] + b"\1"
        total = (total + int.from_bytes(block, "little")) * r % (2**130 - 5)
    return ((total + int.from_bytes(key[16:], "little")) % 2**128).to_bytes(16, "little")


def xor(left: bytes, right: bytes) -> bytes:
    number = int.from_bytes(left, "little") ^ int.from_bytes(right, "little")
    return number.to_bytes(len(left), "little")


def seal(key: bytes, nonce: bytes, text: bytes, additional: bytes = b"") -> bytes:
    """Ciphertext and tag."""
    stream = chacha20(key, nonce, 64 + len(text), 0)
    sealed = xor(text, stream[64:])
    lengths = struct.pack("<QQ", len(additional), len(sealed))
    padded = (part + bytes(-len(part) % 16) for part in (additional, sealed))
    return sealed + poly1305(stream[:32], b"".join(padded) + lengths)


def xseal(key: bytes, nonce: bytes, text: bytes, additional: bytes = b"") -> bytes:
    return seal(hchacha20(key, nonce[:16]), bytes(4) + nonce[16:], text, additional)


def counter_nonce(counter: int) -> bytes:
    return struct.pack("<IQ", 0, counter)


def check_published() -> None:
    """Check the RFCs' vectors: a mistake here would be a mistake in the expected digests."""
    known = bytes.fromhex
    published = (
        (
            blake2s(b"abc"),
            "508c5e8c327c14e2e1a72ba34eeb452f37458b209ed63a294d999b4c86675982",
        ),
        (
            x25519(
                known("a546e36bf0527c9d3b16154b82465edd62144c0ac1fc5a18506a2244ba449ac4"),
                known("e6db6867583030db3594c1a424b15f7c726624ec26b3353b10a903a6d0ab1c4c"),
            ),
            "c3da55379de9c6908e94ea4df28d084f32eccf03491c71f754b4075577a28552",
        ),
        (x25519(BASE, BASE), "422c8e7a6227d7bca1350b3e2bb7279f7897b87bb6854b783c60e80311ae3079"),
        # RFC 8439 section 2.5.2.
        (
            poly1305(
                known("85d6be7857556d337f4452fe42d506a80103808afb0db2fd4abff6af4149f51b"),
                b"Cryptographic Forum Research Group",
            ),
            "a8061dc1305136c6c22b8baf0c0127a9",
        ),
        # RFC 8439 section 2.8.2: the tag.
        (
            seal(
                bytes(range(0x80, 0xA0)),
                known("070000004041424344454647"),
                b"Ladies and Gentlemen of the class of '99: If I could offer you only one tip for "
                b"the future, sunscreen would be it.",
                known("50515253c0c1c2c3c4c5c6c7"),
            )[-16:],
            "1ae10b594f09e26a7e902ecbd0600691",
        ),
        # draft-irtf-cfrg-xchacha-03 section 2.2.1.
        (
            hchacha20(bytes(range(32)), known("000000090000004a0000000031415927")),
            "82413b4227b27bfed30e42508a877d73a0f9e4d58a74a853c12ec41326d3ecdc",
        ),
        # The SipHash paper, appendix A.
        (
            siphash(bytes(range(16)), bytes(range(15))).to_bytes(8, "big"),
            "a129ca6149be45e5",
        ),
    )
    for number, (found, expected) in enumerate(published):
        if found.hex() != expected:
            raise SystemExit(f"selftest: published vector {number}: {found.hex()}")
