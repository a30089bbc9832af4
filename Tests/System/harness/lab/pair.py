"""Two nodes with a tunnel between them."""

import dataclasses

from harness.lab.lab import Lab
from harness.lab.node import Node, preshared_key
from harness.settings import Program
from harness.traffic.ping import ping
from harness.waiting import wait_until

OURS_PORT, THEIRS_PORT = 51001, 51002


@dataclasses.dataclass
class Pair:
    """`ours` runs the program under test, `theirs` the peer; one of them initiates."""

    ours: Node
    theirs: Node
    initiator: Node
    responder: Node

    @property
    def nodes(self) -> tuple[Node, Node]:
        return self.ours, self.theirs

    def handshake(self, seconds: float = 10) -> None:
        """Ping from the initiator until there is a session."""
        wait_until(
            lambda: ping(self.initiator, self.responder.inner4, count=1).received == 1,
            "an answer through the tunnel",
            seconds,
        )


def build_pair(
    lab: Lab,
    ours: Program,
    theirs: Program,
    role: str = "initiator",
    outer: int = 4,
    psk: bool = False,
    mtu: int | None = None,
    outer_mtu: int = 1500,
    host_ipv6: bool = True,
    profile: str = "",
    level: str = "verbose",
    peer_level: str = "verbose",
) -> Pair:
    """Two started, configured nodes; `role` is that of the program under test.

    Only the initiator is given an endpoint: the responder has to learn it.
    """
    left, right = lab.namespace("ours"), lab.namespace("theirs")
    if not host_ipv6:
        left.disable_ipv6()
        right.disable_ipv6()
    lab.connect(left, right, outer_mtu)
    nodes = (lab.node(left, ours, "ours"), lab.node(right, theirs, "theirs"))
    place(*nodes, inner6=host_ipv6 and (mtu is None or mtu >= 1280))
    nodes[0].start(profile=profile, level=level)
    nodes[1].start(level=peer_level)
    initiator, responder = nodes if role == "initiator" else nodes[::-1]
    introduce(initiator, responder, outer, preshared_key() if psk else None)
    for node in nodes:
        node.bring_up(mtu)
    return Pair(*nodes, initiator, responder)


def place(ours: Node, theirs: Node, inner6: bool = True) -> None:
    """Set the addresses that Lab.connect assigns, and choose the inner ones."""
    for number, node, port in ((1, ours, OURS_PORT), (2, theirs, THEIRS_PORT)):
        node.outer4, node.outer6, node.port = f"198.51.100.{number}", f"2001:db8::{number}", port
        node.inner4, node.inner6 = f"10.7.0.{number}", f"fd07::{number}" if inner6 else ""


def introduce(initiator: Node, responder: Node, outer: int, preshared: str | None) -> None:
    """Give both their keys, ports and each other."""
    for node in (initiator, responder):
        node.set("listen-port", str(node.port), secrets={"private-key": node.keys.private})
    initiator.add_peer(responder, endpoint=responder.endpoint(outer), preshared=preshared)
    responder.add_peer(initiator, preshared=preshared)


# A tunnel whose ends are started with different options and environments.

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
        # Tests count packets, so a pause of the machine must not lose any.
        node.namespace.ip(f"link set {node.interface} txqueuelen {QUEUED}")
    pair = Pair(*nodes, *nodes)
    pair.handshake()
    return pair
