"""Packets as they pass an interface."""

import dataclasses
import socket
import struct
import threading

from .namespace import Namespace

ETH_P_ALL, ETH_P_IP, ETH_P_IPV6 = 0x0003, 0x0800, 0x86DD
ETHERNET_HEADER = 14
INITIATION, RESPONSE, COOKIE, DATA = 1, 2, 3, 4


@dataclasses.dataclass(frozen=True)
class Packet:
    """An IP packet; `payload` is what follows the IP header (IPv6: the fixed one)."""

    source: str
    target: str
    protocol: int
    traffic_class: int
    payload: bytes

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


def parse(packet: bytes) -> Packet | None:
    """An IP packet's parts, None when it is not one."""
    if len(packet) >= 20 and packet[0] >> 4 == 4:
        source, target = (socket.inet_ntop(socket.AF_INET, packet[i : i + 4]) for i in (12, 16))
        return Packet(source, target, packet[9], packet[1], packet[(packet[0] & 15) * 4 :])
    if len(packet) >= 40 and packet[0] >> 4 == 6:
        source, target = (socket.inet_ntop(socket.AF_INET6, packet[i : i + 16]) for i in (8, 24))
        traffic_class = (packet[0] << 8 | packet[1]) >> 4 & 0xFF
        return Packet(source, target, packet[6], traffic_class, packet[40:])
    return None


class Capture:
    """What passes an interface in both directions while the `with` block runs."""

    def __init__(self, namespace: Namespace, interface: str, has_ethernet: bool = True):
        self.skip = ETHERNET_HEADER if has_ethernet else 0
        self.packets: list[Packet] = []
        with namespace.entered():
            self.socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL))
            self.socket.bind((interface, ETH_P_ALL))
        self.socket.settimeout(0.1)
        self.running = True
        self.thread = threading.Thread(target=self.receive, daemon=True)

    def receive(self) -> None:
        while self.running:
            try:
                packet = parse(self.socket.recv(1 << 16)[self.skip :])
            except TimeoutError:
                continue
            except OSError:
                return  # the interface went away
            if packet:
                self.packets.append(packet)

    def __enter__(self) -> "Capture":
        self.thread.start()
        return self

    def __exit__(self, *_error) -> None:
        self.running = False
        self.thread.join()
        self.socket.close()

    def messages(self, kind: int, source: str | None = None) -> list[Packet]:
        """The WireGuard messages of a type, of one sender or of all."""
        return [
            packet
            for packet in list(self.packets)
            if packet.message == kind and source in (None, packet.source)
        ]
