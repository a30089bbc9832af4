"""Captures the packets of an interface."""

import dataclasses
import socket
import struct
import threading
import time

from harness.lab.namespace import Namespace
from harness.waiting import wait_until

ETH_P_ALL, ETH_P_IP, ETH_P_IPV6 = 0x0003, 0x0800, 0x86DD
ETHERNET_HEADER = 14
# Of <asm-generic/socket.h>; the control message has the number of the option and two int64.
SO_TIMESTAMPNS_NEW, SO_RCVBUFFORCE = 64, 33
BUFFER = 16 << 20  # bytes; enough while this process does not run
INITIATION, RESPONSE, COOKIE, DATA = 1, 2, 3, 4


@dataclasses.dataclass(frozen=True)
class Packet:
    """An IP packet; `payload` is what follows the IP header (IPv6: the fixed one).

    `time` is the kernel's timestamp in seconds since the epoch, even if the packet is read late.
    """

    source: str
    target: str
    protocol: int
    traffic_class: int
    payload: bytes
    time: float = 0.0
    is_fragment: bool = False

    @property
    def ecn(self) -> int:
        return self.traffic_class & 3

    @property
    def is_udp(self) -> bool:
        return self.protocol == socket.IPPROTO_UDP and len(self.payload) >= 8

    @property
    def ports(self) -> tuple[int, int]:
        return struct.unpack("!HH", self.payload[:4])

    @property
    def message(self) -> int:
        """The type of a WireGuard message, 0 for anything else."""
        return self.payload[8] if self.is_udp and len(self.payload) > 8 else 0


def parse(packet: bytes, time: float = 0.0) -> Packet | None:
    """The parts of an IP packet, or None if it is not an IP packet."""
    if len(packet) >= 20 and packet[0] >> 4 == 4:
        source, target = (socket.inet_ntop(socket.AF_INET, packet[i : i + 4]) for i in (12, 16))
        # "More fragments" and the offset, but not "don't fragment".
        is_fragment = int.from_bytes(packet[6:8], "big") & 0x3FFF != 0
        payload = packet[(packet[0] & 15) * 4 :]
        return Packet(source, target, packet[9], packet[1], payload, time, is_fragment)
    if len(packet) >= 40 and packet[0] >> 4 == 6:
        source, target = (socket.inet_ntop(socket.AF_INET6, packet[i : i + 16]) for i in (8, 24))
        traffic_class = (packet[0] << 8 | packet[1]) >> 4 & 0xFF
        is_fragment = packet[6] == socket.IPPROTO_FRAGMENT
        return Packet(source, target, packet[6], traffic_class, packet[40:], time, is_fragment)
    return None


class Capture:
    """The packets of an interface in both directions while the `with` block runs."""

    def __init__(self, namespace: Namespace, interface: str, has_ethernet: bool = True):
        self.skip = ETHERNET_HEADER if has_ethernet else 0
        self.packets: list[Packet] = []
        with namespace.entered():
            self.socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL))
            self.socket.bind((interface, ETH_P_ALL))
        self.socket.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS_NEW, 1)
        self.socket.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, BUFFER)
        self.socket.settimeout(0.1)
        self.end = float("inf")
        self.thread = threading.Thread(target=self.receive, daemon=True)

    def receive(self) -> None:
        """Read until `end`, then read the packets that were queued before."""
        seen = 0.0
        while seen < self.end:
            try:
                content, control, _, _ = self.socket.recvmsg(1 << 16, 256)
            except TimeoutError:
                seen = time.time()
                continue
            except OSError:
                return  # the interface was removed
            seen = kernel_time(control)
            if packet := parse(content[self.skip :], seen):
                self.packets.append(packet)

    def __enter__(self) -> "Capture":
        self.thread.start()
        return self

    def __exit__(self, *_error) -> None:
        self.end = time.time()
        self.thread.join()
        self.socket.close()

    def messages(self, kind: int, source: str | None = None) -> list[Packet]:
        """The WireGuard messages of a type, of one sender or of all."""
        return [
            packet
            for packet in list(self.packets)
            if packet.message == kind and source in (None, packet.source)
        ]

    def settle(self, kind: int, seconds: float = 1.5) -> None:
        """Wait until no WireGuard message of a type has passed for this long."""
        started = time.time()

        def is_quiet() -> bool:
            last = max((it.time for it in self.messages(kind)), default=started)
            return time.time() - last > seconds

        wait_until(is_quiet, f"{seconds:g} s of silence")


def kernel_time(control: list[tuple[int, int, bytes]]) -> float:
    """The time stamp in a message's control data, or the present time."""
    for level, kind, data in control:
        if (level, kind) == (socket.SOL_SOCKET, SO_TIMESTAMPNS_NEW):
            seconds, nanoseconds = struct.unpack("=qq", data[:16])
            return seconds + nanoseconds / 1e9
    return time.time()
