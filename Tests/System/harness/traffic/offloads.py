"""Starts a program on an existing interface without offloads.

wireguard-go sends the packets of one read as one batch of segments, and loses the batch if the
segments are larger than the link's MTU. From an interface without a packet header it reads one
packet at a time, which the kernel then sends in fragments.
"""

import io
import itertools
import pathlib
import struct
from fcntl import ioctl

from harness.lab.node import Node

TUNSETIFF, IFF_TUN, IFF_NO_PI = 0x400454CA, 0x0001, 0x1000


def start_on_plain_tun(node: Node, **options) -> None:
    """Like Node.start, with an interface that returns one packet at a time."""
    with open_tun(node) as tun:
        number = tun.fileno()
        node.start(environment={"WG_TUN_FD": str(number)}, pass_fds=(number,), **options)


def open_tun(node: Node) -> io.RawIOBase:
    with node.namespace.entered():
        tun = pathlib.Path("/dev/net/tun").open("r+b", buffering=0)
        ioctl(tun, TUNSETIFF, struct.pack("16sH22x", node.interface.encode(), IFF_TUN | IFF_NO_PI))
    return tun


# A small set of combinations that contains every pair of choices.


def pairwise(**factors: tuple) -> list[dict]:
    """Rows that contain every pair of values of any two factors; always the same rows.

    Greedy: each row starts with the first pair that is still missing and adds, factor by factor,
    the value that covers the most missing pairs; of equal ones, the one used least so far.
    """
    names = list(factors)
    missing = {
        (one, first, other, second)
        for one, other in itertools.combinations(range(len(names)), 2)
        for first in range(len(factors[names[one]]))
        for second in range(len(factors[names[other]]))
    }
    uses = {(place, value): 0 for place in range(len(names)) for value in range(99)}
    rows = []
    while missing:
        one, first, other, second = min(missing)
        row: dict[int, int] = {one: first, other: second}
        for place in range(len(names)):
            if place not in row:
                row[place] = best_value(place, len(factors[names[place]]), row, missing, uses)
        missing -= set(pairs_of(row))
        for choice in row.items():
            uses[choice] += 1
        rows.append({name: factors[name][row[place]] for place, name in enumerate(names)})
    return rows


def best_value(place: int, count: int, row: dict, missing: set, uses: dict) -> int:
    def gain(value: int) -> tuple[int, int]:
        made = sum(pair in missing for pair in pairs_of({**row, place: value}))
        return made, -uses[(place, value)]

    return max(range(count), key=gain)


def pairs_of(row: dict[int, int]) -> list[tuple[int, int, int, int]]:
    return [
        (one, row[one], other, row[other]) for one, other in itertools.combinations(sorted(row), 2)
    ]
