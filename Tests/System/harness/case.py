"""The base of all interoperability tests."""

import enum
import errno
import itertools
import unittest
from collections.abc import Callable
from typing import ClassVar

from harness.lab.chain import Chain, Shape
from harness.lab.control import UAPIConnection
from harness.lab.lab import Lab
from harness.lab.node import KeyPair, Node, hexadecimal
from harness.lab.pair import Pair, build_pair
from harness.settings import Program, Settings
from harness.traffic.datagrams import Arrivals, send_datagrams
from harness.traffic.ping import ping
from harness.traffic.streams import stream
from harness.waiting import wait_until

ROLES = ("initiator", "responder")
FAMILIES = (4, 6)


def each(**choices: tuple) -> Callable:
    """Expand a test method into one test per combination of choices, its keyword arguments."""

    def mark(function: Callable) -> Callable:
        function.choices = choices
        return function

    return mark


def trait(name: str) -> Callable:
    def mark(function: Callable) -> Callable:
        setattr(function, name, True)
        return function

    return mark


# quick: part of the short run (--quick). long: started first, as it waits for a long timer.
# heavy: needs a processor to itself. alone: measures times, or needs all processors; starts when
# all other tests have ended. culvert_only: other programs need not pass it.
quick, long, heavy, alone = trait("quick"), trait("long"), trait("heavy"), trait("alone")
culvert_only = trait("culvert_only")


def needs(what: str) -> Callable:
    """Skip the test, with the reason, if the program's system lacks this: see Program.lacks."""

    def mark(function: Callable) -> Callable:
        function.needs = what
        return function

    return mark


class InteropCase(unittest.TestCase):
    """A test with its own lab, which is closed and checked for leftovers at the end."""

    settings: ClassVar[Settings]

    def __init_subclass__(cls, **options) -> None:
        super().__init_subclass__(**options)
        for name, function in list(vars(cls).items()):
            if hasattr(function, "choices"):
                delattr(cls, name)
                expand(cls, name, function)

    def setUp(self) -> None:
        self.lab = Lab()
        self.addCleanup(self.close_lab)

    def close_lab(self) -> None:
        complaints = self.lab.close()
        self.assertEqual(complaints, [], "left behind at the end")

    @property
    def method(self) -> Callable:
        return getattr(type(self), self._testMethodName)

    def firewall_mark(self, value: int) -> int:
        """A firewall mark, or 0 if the system has none."""
        return 0 if "fwmark" in self.settings.program.lacks else value

    def pair(self, role: str = "initiator", **options) -> Pair:
        """Two nodes: the program under test in the given role, and the peer."""
        return build_pair(self.lab, self.settings.program, self.settings.peer, role, **options)

    def node(self, role: str = "ours") -> Node:
        """A node of the program under test alone in a namespace, not started."""
        node = self.lab.node(self.lab.namespace(role), self.settings.program, role)
        node.inner4, node.inner6, node.port = "10.7.0.1", "fd07::1", 51001
        return node


def expand(cls: type, name: str, function: Callable) -> None:
    """Put one method per combination of choices into the class."""
    names = list(function.choices)
    for values in itertools.product(*function.choices.values()):
        chosen = dict(zip(names, values))

        def method(self, chosen=chosen):
            return function(self, **chosen)

        method.__dict__.update(function.__dict__)
        method.__name__ = "_".join([name, *(label(key, chosen[key]) for key in names)])
        method.__doc__ = function.__doc__
        setattr(cls, method.__name__, method)


def label(key: str, value: object) -> str:
    """A choice as part of a test's name: the word itself, or for example outer6, with_psk."""
    if isinstance(value, bool):
        return f"{'with' if value else 'without'}_{key}"
    if isinstance(value, enum.Enum):
        return value.name
    return (value or "empty") if isinstance(value, str) else f"{key}{value}"


# The base of the tests that speak the configuration protocol directly on a socket.

EINVAL, EPROTO = -errno.EINVAL, -errno.EPROTO
ZERO_KEY = "00" * 32


class UAPICase(InteropCase):
    """One started node of the program under test, and a connection to it."""

    def setUp(self) -> None:
        super().setUp()
        self.ours = self.node()
        self.ours.start()
        self.uapi = self.connect()
        self.peer = hexadecimal(KeyPair.generate().public)

    def connect(self) -> UAPIConnection:
        connection = UAPIConnection(self.ours.socket_path)
        self.addCleanup(connection.socket.close)
        return connection

    def apply(self, *lines: str) -> None:
        """A `set` that must succeed."""
        self.assertEqual(self.uapi.set(*lines), 0, lines)

    def device(self) -> dict[str, str]:
        """The lines before the first peer."""
        lines = self.uapi.get()
        keys = [key for key, _ in lines]
        return dict(lines[: keys.index("public_key") if "public_key" in keys else None])

    def peers(self) -> dict[str, dict[str, list[str]]]:
        """Per public key, the values of each key."""
        found, current = {}, None
        for key, value in self.uapi.get():
            if key == "public_key":
                current = found.setdefault(value, {})
            elif current is not None:
                current.setdefault(key, []).append(value)
        return found

    def allowed_ips(self, peer: str) -> set[str]:
        return set(self.peers()[peer].get("allowed_ip", []))


# The base of the tests of nested tunnels.

IPV4_AND_ICMP, IPV6_AND_ICMP = 28, 48


class NestingCase(InteropCase):
    """A client whose tunnels run through a chain of servers.

    If the program under test is not Culvert, the client is one process for each hop, connected by
    the kernel's routes. That distinguishes failures of the chain from failures of the nesting.
    """

    def chain(
        self,
        *families: int,
        server: Program | None = None,
        options: tuple[str, ...] = (),
        lines: dict[str, tuple[str, ...]] | None = None,
        **shape,
    ) -> Chain:
        """A chain with sessions in all its tunnels; the servers run the peer by default."""
        chain = Chain(
            self.lab,
            self.settings.program,
            server or self.settings.peer,
            Shape(families or (4, 4), **shape),
        )
        chain.start_client(options, **(lines or {}))
        chain.handshake()
        return chain

    def check_answers(self, chain: Chain, size: int = 56) -> None:
        """Pings of both families in both directions."""
        for source, target in self.ways(chain):
            for address in self.addresses(target):
                result = ping(source, address, size=size)
                self.assertEqual(result.received, 3, f"{source.role} to {address}: {result}")

    def check_bytes(self, chain: Chain, byte_count: int = 1 << 20) -> None:
        """TCP both ways in both families, compared by SHA-256."""
        for source, target in self.ways(chain):
            for address in self.addresses(target):
                stream(source, target, address, byte_count)

    def await_large(self, source: Node, target: Node, size: int) -> None:
        """Ping with a size until all sockets on the path know their path MTU."""
        for address in self.addresses(target):
            wait_until(
                lambda: ping(source, address, size=size, wait=0.5).received == 3,
                f"three answers of {size} bytes",
            )

    def send(self, source: Node, target: Node, count: int, sizes: tuple[int, int]) -> Arrivals:
        """Send numbered datagrams, so slowly that no queue on the path overflows."""
        return send_datagrams(source, target, target.inner4, count, sizes, rate=2000)

    def check_arrivals(self, arrivals: Arrivals, least: float = 1.0) -> None:
        """No datagram is changed, doubled or late, and at least this share has arrived."""
        wrong = arrivals.changed, arrivals.doubled, arrivals.late
        self.assertEqual(wrong, (0, 0, 0), f"changed, doubled, late: {arrivals}")
        self.assertGreaterEqual(arrivals.received, least * arrivals.sent, arrivals)

    def ways(self, chain: Chain) -> tuple[tuple[Node, Node], tuple[Node, Node]]:
        return (chain.client, chain.exit), (chain.exit, chain.client)

    def addresses(self, node: Node) -> list[str]:
        return [it for it in (node.inner4, node.inner6) if it]
