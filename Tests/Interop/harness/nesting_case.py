"""The base of the tests of tunnels inside tunnels."""

from .case import InteropCase
from .chain import Chain, Shape
from .datagrams import Arrivals, send_datagrams
from .deadline import wait_until
from .echo import ping
from .node import Node
from .program import Program
from .stream import stream

IPV4_AND_ICMP, IPV6_AND_ICMP = 28, 48


class NestingCase(InteropCase):
    """A client whose tunnels run through a chain of servers.

    Where the program under test is not Culvert, the client is one program for each hop and the
    kernel's routes: that shows what belongs to the chain and what to the nesting.
    """

    def chain(
        self,
        *families: int,
        server: Program | None = None,
        options: tuple[str, ...] = (),
        lines: dict[str, tuple[str, ...]] | None = None,
        **shape,
    ) -> Chain:
        """A chain with sessions in all its tunnels; the servers are the peer unless told."""
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
        """Pings of a size, until all sockets on the way know what they have to cut."""
        for address in self.addresses(target):
            wait_until(
                lambda: ping(source, address, size=size, wait=0.5).received == 3,
                f"three answers of {size} bytes",
            )

    def send(self, source: Node, target: Node, count: int, sizes: tuple[int, int]) -> Arrivals:
        """Numbered datagrams, so slowly that no queue on the way overflows."""
        return send_datagrams(source, target, target.inner4, count, sizes, rate=2000)

    def check_arrivals(self, arrivals: Arrivals, least: float = 1.0) -> None:
        """None changed, doubled or late, and of those sent at least this share has come."""
        wrong = arrivals.changed, arrivals.doubled, arrivals.late
        self.assertEqual(wrong, (0, 0, 0), f"changed, doubled, late: {arrivals}")
        self.assertGreaterEqual(arrivals.received, least * arrivals.sent, arrivals)

    def ways(self, chain: Chain) -> tuple[tuple[Node, Node], tuple[Node, Node]]:
        return (chain.client, chain.exit), (chain.exit, chain.client)

    def addresses(self, node: Node) -> list[str]:
        return [it for it in (node.inner4, node.inner6) if it]
