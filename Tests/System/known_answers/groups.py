"""The expected input of each hash in `culvert selftest`, from specifications and naive models.

The inputs are drawn as in Sources/Culvert/Selftest, from the same seeds; nothing else is shared.
"""

import base64
import binascii
import ipaddress
import re
import struct

import primitives
from primitives import BASE, LONG, WORD, Random, blake2s, counter_nonce, hkdf, x25519
from wireguard import handshake

# As in `SelftestGroup`, without the reassembler: its model is in the unit tests.
NAMES = (
    *("blake2s", "hmac", "hkdf", "siphash", "x25519", "chacha20-poly1305", "xchacha20-poly1305"),
    *("handshake", "handshake-psk", "timers", "replay-window", "allowed-ips", "time", "checksum"),
    *("fragmenter", "reassembler", "text", "configuration"),
)
SECOND = 10**9
# 32 bits for each of the addresses 10.0.0.1 and 10.0.0.2, 128 for 0:0:0:1::1 and ::2.
FOURS = bytes([10, 0, 0, 1]), bytes([10, 0, 0, 2])
SIXES = struct.pack(">QQ", 1, 1), struct.pack(">QQ", 1, 2)


class Digest:
    def __init__(self) -> None:
        self.parts: list[bytes] = []

    def add(self, *values: int | bytes) -> None:
        for value in values:
            self.parts.append(value if isinstance(value, bytes) else struct.pack("<Q", value))

    def finish(self) -> str:
        return blake2s(b"".join(self.parts))[:8].hex()


def edges() -> list[int]:
    around = [(1 << bit) - 1 + offset for bit in range(64) for offset in range(3)]
    return [edge & LONG for edge in around] + [LONG]


# --- primitives


def blake2s_group(digest: Digest, random: Random) -> None:
    key, text = random.bytes(32), random.bytes(512)
    for count in range(321):
        width = 1 + count % 32
        digest.add(blake2s(text[:count]), blake2s(text[:count], width, key[:width]))


def hmac_group(digest: Digest, random: Random) -> None:
    key, text = random.bytes(64), random.bytes(160)
    for count in range(161):
        digest.add(primitives.hmac_blake2s(key[: count % 64], text[:count]))


def hkdf_group(digest: Digest, random: Random) -> None:
    text, chaining_key = random.bytes(80), bytes(32)
    for count in range(81):
        outputs = hkdf(chaining_key, text[:count], 3)
        digest.add(*outputs)
        chaining_key = outputs[0]


def siphash_group(digest: Digest, random: Random) -> None:
    key, text = random.bytes(16), random.bytes(64)
    digest.add(*(primitives.siphash(key, text[:count]) for count in range(65)))


def x25519_group(digest: Digest, _: Random) -> None:
    known = bytes.fromhex
    products = [
        (
            known("a546e36bf0527c9d3b16154b82465edd62144c0ac1fc5a18506a2244ba449ac4"),
            known("e6db6867583030db3594c1a424b15f7c726624ec26b3353b10a903a6d0ab1c4c"),
        ),
        (
            known("4b66e9d4d1b4673c5ad22691957d6af5c11b6421e0ea01d42ca4169e7918ba0d"),
            known("e5210f12786811d3f4b7959d0538ae2c31dbe7106fc03c3efc4cd549c715a493"),
        ),
    ]
    products += [(products[1][0], bytes([low]) + bytes(31)) for low in (0, 1)]
    for scalar, point in products:
        product = x25519(scalar, point)
        digest.add(int(any(product)), product)
    scalar = point = BASE
    for _ in range(16):
        product = x25519(scalar, point)
        digest.add(1, product)
        scalar, point = product, scalar
    digest.add(x25519(scalar, BASE))


def aead_group(digest: Digest, random: Random) -> None:
    key = random.bytes(32)
    text = random.bytes(64 + 1536 + 32 + 256)[64:]
    for count in range(1537):
        padded = text[: count - count % 8] + bytes(count % 8)
        sealed = primitives.seal(key, counter_nonce(count * 0x1_0000_0001), padded)
        # Two ciphers, one of which also returns the ciphertext; both open it; a forgery is refused.
        digest.add(sealed, 1, sealed[count:], 1, 1)


def xaead_group(digest: Digest, random: Random) -> None:
    key, nonce, text = random.bytes(32), bytearray(random.bytes(24)), random.bytes(128)
    for count in range(129):
        nonce[5] = count
        digest.add(primitives.xseal(key, bytes(nonce), text[:count], key[: count % 32]))
        digest.add(1, text[:count]) if count % 2 == 0 else digest.add(0, bytes(count))


# --- tables and time


def timers_group(digest: Digest, random: Random) -> None:
    due: dict[int, int] = {}
    for _ in range(4096):
        peer = random.below(32)
        deadline = random.word() & ~31 | peer
        match random.below(4):
            case 0:
                due.pop(peer, None)
            case 1:
                if due:
                    first = min(due, key=lambda peer: due[peer])
                    due[first] = deadline & ~31 | first
            case _:
                due[peer] = min(due.get(peer, deadline), deadline)
        digest.add(min(due.values(), default=LONG))
    # Whitepaper 6.1 and 6.3: an attempt, then another after five seconds and jitter, 18 in all;
    # then the tunnel gives up, and after nine minutes it erases the keys. Sent: one each, 0.
    now, retry = (1 << 63) + 1, 5 * SECOND + 0x8887868584838281 % (1 << 29)
    for _ in range(18):
        digest.add(now, 1)
        now += retry
    digest.add(now, 0, now + 540 * SECOND, 0)


def replay_group(digest: Digest, random: Random) -> None:
    seen: set[int] = set()
    greatest, reject_after = 0, LONG - (1 << 13)
    for index in range(16389):
        step = random.below(16384)
        match random.below(8):
            case 0 | 1 | 2 | 3:
                counter = greatest + 1 + step % 4
            case 4:
                counter = greatest + step // 16
            case 5:
                counter = greatest - 8184 - step % 16
            case _:
                counter = greatest - step
        if index == 0:
            counter = (1 << 32) - 9000
        if index > 16384:
            counter = reject_after - 2 + index - 16385
        is_accepted = counter not in seen and counter < reject_after and counter > greatest - 8192
        if is_accepted:
            seen.add(counter)
            greatest = max(greatest, counter)
        digest.add(int(is_accepted))


def routing_group(digest: Digest, random: Random) -> None:
    held: dict[tuple[bool, int, int], int] = {}
    for _ in range(4096):
        high, low = random.word() & 0xF000_0003_0000_0001, random.word() & 0x8000_0000_0000_0001
        is_ipv4 = random.below(2) == 0
        bits = 32 if is_ipv4 else 128
        length, peer = random.below(256) % (bits + 1), random.below(4)
        address = high >> 32 if is_ipv4 else high << 64 | low
        prefix = (is_ipv4, length, address >> (bits - length))
        match random.below(8):
            case 0 | 1:
                fits = prefix in held or len(held) < 48
                if fits:
                    held[prefix] = peer
                digest.add(int(fits))
            case 2:
                is_its_own = held.get(prefix) == peer
                if is_its_own:
                    del held[prefix]
                digest.add(int(is_its_own))
            case 3:
                if length == 0:
                    held = {key: value for key, value in held.items() if value != peer}
            case _:
                covering = [
                    key
                    for key in held
                    if key[0] == is_ipv4 and address >> (bits - key[1]) == key[2]
                ]
                found = max(covering, key=lambda key: key[1], default=None)
                digest.add(WORD if found is None else held[found])
    digest.add(len(held))


def time_group(digest: Digest, random: Random) -> None:
    quantum = 1 << 24
    for edge in edges():
        duration = random.word() >> (edge & 63)
        later = min(edge + duration, LONG)
        # A clock's last nanosecond means "never", which is never due.
        is_due = later <= edge and later != LONG
        end = min(edge + duration, LONG)
        digest.add(later, later - edge, max(0, edge - duration), int(is_due))
        digest.add(int(end <= later and end != LONG))
        seconds = (1 << 62) + 10 + min(edge, 1 << 62)
        nanoseconds = min(duration & WORD, SECOND - 1) // quantum * quantum
        digest.add(struct.pack(">QI", seconds, nanoseconds))
        following = nanoseconds + quantum
        if following >= SECOND:
            seconds, following = seconds + 1, 0
        digest.add(struct.pack(">QI", seconds, following), 1)


# --- packets


def ones_complement(data: bytes) -> int:
    total = sum(word for (word,) in struct.iter_unpack(">H", data + bytes(len(data) % 2)))
    return total if total == 0 else (total - 1) % 0xFFFF + 1


def checksum_group(digest: Digest, random: Random) -> None:
    text = random.bytes(520)
    for count in range(513):
        part = text[count % 8 :][:count]
        digest.add(ones_complement(part) ^ 0xFFFF)
        high = random.word()
        pseudo = struct.pack(">QQIII", high, high ^ LONG, WORD, count * 128, 17)
        value = ones_complement(part + bytes(count % 2) + pseudo) ^ 0xFFFF
        digest.add(value or 0xFFFF)
    digest.add(ones_complement(b"\xff" * 65535))


def ipv4(total: int, identification: int, field: int, mark: int = 0) -> bytes:
    head = struct.pack(">BBHHHBB", 0x45, mark, total, identification, field, 64, 17)
    value = ones_complement(head + bytes(2) + b"".join(FOURS)) ^ 0xFFFF
    return head + struct.pack(">H", value) + b"".join(FOURS)


def ipv6(payload: int, number: int) -> bytes:
    return struct.pack(">IHBB", 6 << 28, payload, number, 64) + b"".join(SIXES)


def fragments_group(digest: Digest, random: Random) -> None:
    filler = bytearray(random.bytes(4096))
    for _ in range(128):
        is_ipv4 = random.below(2) == 0
        count = random.below(4096) % (4096 - 40)
        mtu = (60 if is_ipv4 else 1270) + random.below(1024)
        identification = random.word() & WORD
        # The bytes that a header overwrites stay overwritten for the following packets.
        if is_ipv4:
            may_not = random.below(8) == 0
            total = 20 + count
            filler[:20] = ipv4(total, 0, 0x4000 if may_not else 0)
            room, least = (mtu - 20) // 8 * 8, 68
        else:
            may_not = False
            total = 40 + count
            filler[:40] = ipv6(count, 17)
            room, least = (mtu - 48) // 8 * 8, 1280
        # An IPv6 header without a payload is a valid packet.
        if mtu < least or (total > mtu and may_not):
            digest.add(LONG)
            continue
        if total <= mtu:
            digest.add(bytes(filler[:total]))
            continue
        data = bytes(filler[20 if is_ipv4 else 40 : total])
        for start in range(0, count, room):
            part = data[start : start + room]
            more = start + room < count
            if is_ipv4:
                field = start // 8 | (0x2000 if more else 0)
                digest.add(ipv4(20 + len(part), identification & 0xFFFF, field) + part)
            else:
                header = struct.pack(">BBHI", 17, 0, start | more, identification)
                digest.add(ipv6(8 + len(part), 44) + header + part)


# --- text


def decode_base64(text: bytes) -> bytes | None:
    try:
        key = base64.b64decode(text, validate=True)
    except binascii.Error:
        return None
    # Python ignores the unused bits of the last character; a key would have two encodings.
    return key if len(key) == 32 and base64.b64encode(key) == text else None


def decode_hex(text: bytes) -> bytes | None:
    return bytes.fromhex(text.decode()) if re.fullmatch(rb"[0-9A-Fa-f]{64}", text) else None


def add_key(digest: Digest, key: bytes | None) -> None:
    digest.add(int(key is not None), key or bytes(32))


def add_address(digest: Digest, address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> None:
    digest.add(str(address).encode(), 1)


def text_group(digest: Digest, random: Random) -> None:
    for _ in range(128):
        text = bytearray(base64.b64encode(random.bytes(32)))
        digest.add(bytes(text))
        place = random.below(64) % 44
        text[place] = random.below(128)
        add_key(digest, decode_base64(bytes(text)))
        digits = bytearray(0x30 | random.below(8) for _ in range(64))
        place = random.below(64)
        digits[place] = random.below(128)
        add_key(digest, decode_hex(bytes(digits)))
    for edge in edges():
        text = str(edge)
        digest.add(text.encode())
        digest.add(edge if edge <= WORD else 1, edge if edge <= 0xFFFF else 1)
        digest.add(int(text, 16) if int(text, 16) <= WORD else 1)
        add_address(digest, ipaddress.IPv4Address(edge & WORD))
        mask = random.word() & random.word()
        bits = (edge & 0xFFFF_0000_FFFF) << 64 | edge & mask
        add_address(digest, ipaddress.IPv6Address(bits))


def configuration_group(digest: Digest, _: Random) -> None:
    """Derived from the file by hand: kinds as in `SelftestRun.add`, errors as in `ConfigError`."""
    key = bytes(range(32))

    def address(kind: int, text: str, length: int) -> tuple[int, int, int, int]:
        number, bits = int(ipaddress.ip_address(text)), 128 if ":" in text else 32
        number <<= 128 - bits
        return kind, number >> 64, number & LONG, length

    digest.add(1, key, 6, 65535, 7, WORD)
    digest.add(*address(3, "10.0.0.2", 24), *address(3, "fd00::2", 128), 4, 68, 5, 10)
    digest.add(2, key, key, *address(10, "10.0.0.0", 8), *address(10, "::", 0))
    digest.add(*address(11, "1.2.3.4", 32), *address(8, "2001:db8::1", 0), 51820, 9, 65535)
    digest.add(2, key, b"vpn.example.org", 12, 1)
    for section, error in ((1, 11), (1, 12), (1, 14), (1, 13), (2, 20), (2, 17), (2, 18)):
        digest.add(section, error, 2)


GROUPS = {
    "blake2s": blake2s_group,
    "hmac": hmac_group,
    "hkdf": hkdf_group,
    "siphash": siphash_group,
    "x25519": x25519_group,
    "chacha20-poly1305": aead_group,
    "xchacha20-poly1305": xaead_group,
    "handshake": lambda digest, _: handshake(digest, bytes(32)),
    "handshake-psk": lambda digest, _: handshake(digest, bytes(range(0xE0, 0x100))),
    "timers": timers_group,
    "replay-window": replay_group,
    "allowed-ips": routing_group,
    "time": time_group,
    "checksum": checksum_group,
    "fragmenter": fragments_group,
    "text": text_group,
    "configuration": configuration_group,
}


def digests() -> dict[str, str]:
    """Expected digests by group, of all groups that can be computed here."""
    primitives.check_published()
    result = {}
    for seed, name in enumerate(NAMES):
        if name in GROUPS:
            digest = Digest()
            GROUPS[name](digest, Random(seed))
            result[name] = digest.finish()
    return result


def total(values: list[str]) -> str:
    """The digest over those of all groups, in order: a chain that starts at 0."""
    chain = 0
    for value in values:
        link = struct.pack("<QQ", chain, int(value, 16))
        chain = int.from_bytes(blake2s(link)[:8], "big")
    return f"{chain:016x}"
