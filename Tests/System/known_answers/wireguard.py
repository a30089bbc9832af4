"""Both ends of the handshake in `culvert selftest`, from the whitepaper's section 5.4."""

import struct

from primitives import BASE, blake2s, counter_nonce, hkdf, seal, x25519, xseal

CONSTRUCTION = b"Noise_IKpsk2_25519_ChaChaPoly_BLAKE2s"
IDENTIFIER = b"WireGuard v1 zx2c4 Jason@zx2c4.com"
SECOND = 10**9
# 127.0.0.1:51820, the address of both ends.
ENDPOINT = bytes([127, 0, 0, 1]) + struct.pack(">H", 51820)
MTU = 1420
# A new initiation after five seconds and jitter, which is drawn from the same fixed bytes.
RETRY = 5 * SECOND + 0x8887868584838281 % (1 << 29)


def ramp(start: int, count: int = 32) -> bytes:
    return bytes(range(start, start + count))


def clamp(key: bytes) -> bytes:
    number = int.from_bytes(key, "little") & ~7 & (1 << 255) - 1 | 1 << 254
    return number.to_bytes(32, "little")


def public(key: bytes) -> bytes:
    return x25519(key, BASE)


class End:
    """A private key, and the result of each draw of entropy."""

    def __init__(self, private: int, entropy: int) -> None:
        self.private = clamp(ramp(private))
        self.public = public(self.private)
        self.ephemeral = clamp(ramp(entropy))
        self.index = ramp(entropy, 4)
        self.secret = ramp(entropy)
        self.nonce = ramp(entropy, 24)


class Symmetric:
    """Noise section 5.2, with BLAKE2s and WireGuard's prologue."""

    def __init__(self, responder: bytes) -> None:
        self.chaining_key = blake2s(CONSTRUCTION)
        self.hash = blake2s(self.chaining_key + IDENTIFIER)
        self.key = bytes(32)
        self.mix_hash(responder)

    def mix_hash(self, data: bytes) -> None:
        self.hash = blake2s(self.hash + data)

    def mix_key(self, data: bytes) -> None:
        self.chaining_key, self.key = hkdf(self.chaining_key, data, 2)

    def ephemeral(self, key: bytes) -> None:
        self.mix_hash(key)
        self.chaining_key = hkdf(self.chaining_key, key, 1)[0]

    def preshared(self, key: bytes) -> None:
        self.chaining_key, tau, self.key = hkdf(self.chaining_key, key, 3)
        self.mix_hash(tau)

    def encrypt(self, text: bytes) -> bytes:
        sealed = seal(self.key, counter_nonce(0), text, self.hash)
        self.mix_hash(sealed)
        return sealed


def stamp(now: int) -> bytes:
    """TAI64N of a time since 1970, coarse."""
    seconds, nanoseconds = divmod(now, SECOND)
    return struct.pack(">QI", (1 << 62) + 10 + seconds, nanoseconds >> 24 << 24)


def add_macs(message: bytes, receiver: bytes, cookie: bytes | None) -> bytes:
    message += blake2s(message, 16, blake2s(b"mac1----" + receiver))
    return message + (bytes(16) if cookie is None else blake2s(message, 16, cookie))


def inner(count: int) -> bytes:
    """The packet that is sent: an IPv4 header and zeros."""
    head = struct.pack(">BBHHHBBH", 0x45, 0, count, 0, 0, 64, 17, 0)
    head += bytes([10, 0, 0, 1, 10, 0, 0, 2])
    value = sum(word for (word,) in struct.iter_unpack(">H", head))
    value = (value & 0xFFFF) + (value >> 16)
    return head[:10] + struct.pack(">H", ~value & 0xFFFF) + head[12:] + bytes(count - 20)


def transport(receiver: bytes, key: bytes, counter: int, text: bytes) -> bytes:
    """Padded to 16 bytes, but not beyond the MTU."""
    padded = min(-(-len(text) // 16) * 16, MTU)
    sealed = seal(key, counter_nonce(counter), text.ljust(padded, b"\0"))
    return b"\4\0\0\0" + receiver + struct.pack("<Q", counter) + sealed


def handshake(digest, preshared: bytes) -> None:
    one, two = End(0x01, 0x81), End(0x41, 0xC1)
    now = 1_800_000_000_123_456_789

    def initiation(cookie: bytes | None) -> tuple[bytes, Symmetric]:
        noise = Symmetric(two.public)
        message = b"\1\0\0\0" + one.index + public(one.ephemeral)
        noise.ephemeral(public(one.ephemeral))
        noise.mix_key(x25519(one.ephemeral, two.public))
        message += noise.encrypt(one.public)
        noise.mix_key(x25519(one.private, two.public))
        message += noise.encrypt(stamp(now))
        return add_macs(message, two.public, cookie), noise

    first, _ = initiation(None)
    # It is received twice; each copy is answered with a cookie.
    cookie = blake2s(ENDPOINT, 16, two.secret)
    sealed = xseal(blake2s(b"cookie--" + two.public), two.nonce, cookie, first[-32:-16])
    reply = b"\3\0\0\0" + one.index + two.nonce + sealed
    digest.add(first, first, reply, reply)
    now += RETRY
    second, noise = initiation(cookie)
    digest.add(now, second, second)

    message = b"\2\0\0\0" + two.index + one.index + public(two.ephemeral)
    noise.ephemeral(public(two.ephemeral))
    for point in (public(one.ephemeral), one.public):
        noise.chaining_key = hkdf(noise.chaining_key, x25519(two.ephemeral, point), 1)[0]
    noise.preshared(preshared)
    digest.add(add_macs(message + noise.encrypt(b""), one.public, None))
    keys = hkdf(noise.chaining_key, b"", 2)

    counters = [0, 0]

    def send(side: int, text: bytes) -> bytes:
        receiver = (two, one)[side].index
        counters[side] += 1
        return transport(receiver, keys[side], counters[side] - 1, text)

    digest.add(send(0, inner(100)), inner(100))
    for index in range(9):
        packet = inner(20 + 175 * index)
        # Both datagrams, each twice, then the packets that are delivered; replays deliver none.
        one_way, other = send(index % 2, packet), send(index % 2, packet)
        digest.add(one_way, one_way, other, other, packet, packet)
    # Counted at the receiving end.
    digest.add(8, 10)
