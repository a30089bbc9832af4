"""A tunnel whose two ends are started each with words and environment of its own."""

import dataclasses

from .keys import preshared_key
from .lab import Lab
from .pair import Pair, introduce, place
from .program import Program

QUEUED = 8192  # packets in front of a tunnel


@dataclasses.dataclass(frozen=True)
class End:
    """How one end is started."""

    program: Program
    options: tuple[str, ...] = ()
    environment: dict[str, str] = dataclasses.field(default_factory=dict)
    level: str = "verbose"


def build_tunnel(
    lab: Lab,
    ours: End,
    theirs: End,
    outer: int = 4,
    mtu: int | None = None,
    outer_mtu: int = 1500,
    psk: bool = False,
) -> Pair:
    """Two started, configured nodes with a session; ours initiates."""
    left, right = lab.namespace("ours"), lab.namespace("theirs")
    lab.connect(left, right, outer_mtu)
    nodes = (lab.node(left, ours.program, "ours"), lab.node(right, theirs.program, "theirs"))
    place(*nodes)
    for node, end in zip(nodes, (ours, theirs)):
        node.start(level=end.level, options=end.options, environment=dict(end.environment))
    introduce(*nodes, outer, preshared_key() if psk else None)
    for node in nodes:
        node.bring_up(mtu)
        # A pause of the machine is to cost no packets: the tests count them.
        node.namespace.ip(f"link set {node.interface} txqueuelen {QUEUED}")
    pair = Pair(*nodes, *nodes)
    pair.handshake()
    return pair
