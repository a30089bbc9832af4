"""Starting a program on an interface that was made for it, without offloads.

wireguard-go sends what one read brought as one batch of segments, and loses the batch where the
segments are larger than the link's MTU. Of an interface without a packet header it reads one packet
at a time, which the kernel then sends in fragments.
"""

import io
import pathlib
import struct
from fcntl import ioctl

from .node import Node

TUNSETIFF, IFF_TUN, IFF_NO_PI = 0x400454CA, 0x0001, 0x1000


def start_on_plain_tun(node: Node, **options) -> None:
    """As Node.start does, with an interface that brings one packet at a time."""
    with open_tun(node) as tun:
        number = tun.fileno()
        node.start(environment={"WG_TUN_FD": str(number)}, pass_fds=(number,), **options)


def open_tun(node: Node) -> io.RawIOBase:
    with node.namespace.entered():
        tun = pathlib.Path("/dev/net/tun").open("r+b", buffering=0)
        ioctl(tun, TUNSETIFF, struct.pack("16sH22x", node.interface.encode(), IFF_TUN | IFF_NO_PI))
    return tun
