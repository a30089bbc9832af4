"""A link that loses packets and changes their order, between two namespaces.

Unlike relay.py it handles packets of both families, not datagrams, and therefore loses single
fragments. It also works with kernels that have no netem.
"""

import ctypes
import dataclasses
import json
import pathlib
import socket
import struct
import subprocess
import sys
from fcntl import ioctl

from harness.lab.namespace import Namespace, join

PROGRAM = pathlib.Path(__file__).with_name("bad_bridge.py")
SIOCETHTOOL, ETHTOOL_STXCSUM, ETHTOOL_SGSO = 0x8946, 0x17, 0x24


@dataclasses.dataclass(frozen=True)
class Passage:
    """Counts of packets, both directions together."""

    passed: int
    lost: int
    late: int  # sent after one that arrived later
    doubled: int


class BadLink:
    """Starts as a good link; `worsen` makes it bad, `finish` returns its counts."""

    def __init__(
        self,
        middle: Namespace,
        left: Namespace,
        right: Namespace,
        names: tuple[str, str],
        mtu: int,
    ):
        middle.disable_ipv6()
        join(left, middle, names[0], "left", mtu)
        join(middle, right, "right", names[1], mtu)
        for namespace, name in ((left, names[0]), (right, names[1])):
            send_plain_packets(namespace, name)
        self.process = middle.start(
            sys.executable, "-B", str(PROGRAM), "left", "right",
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)  # fmt: skip
        assert self.process.stdout.readline() == "ready\n", "the link did not start"

    def worsen(self, loss: float = 0.0, jitter: float = 0.0, double: float = 0.0) -> None:
        """Set the share that is lost, the maximum delay in seconds, and the share doubled."""
        self.process.stdin.write(f"{loss} {jitter} {double}\n")
        self.process.stdin.flush()

    def finish(self) -> Passage:
        told, _ = self.process.communicate(timeout=30)
        return Passage(**json.loads(told))


def send_plain_packets(namespace: Namespace, interface: str) -> None:
    """Disable offloads: packets then have checksums and are not joined, as on a real wire."""
    with namespace.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        for command in (ETHTOOL_SGSO, ETHTOOL_STXCSUM):
            value = ctypes.create_string_buffer(struct.pack("=II", command, 0), 8)
            request = struct.pack("16sP", interface.encode(), ctypes.addressof(value))
            ioctl(any_socket, SIOCETHTOOL, request.ljust(40, b"\0"))
