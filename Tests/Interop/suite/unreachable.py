"""Programs inside learn at once that there is no way, instead of waiting."""

import errno
import socket
import time

from harness.case import InteropCase, culvert_only, each
from harness.node import Node
from harness.pair import Pair

QUICK = 0.9  # seconds; the second SYN goes out after one
STRANGERS = ("10.7.0.99", "fd07::99")


class UnreachableTests(InteropCase):
    @culvert_only
    @each(family=(4, 6))
    def test_an_address_without_a_peer(self, family: int) -> None:
        """ICMP host unreachable, or ICMPv6 address unreachable, as the kernel's WireGuard."""
        pair = self.pair()
        self.check_unreachable(pair.ours, STRANGERS[family == 6])

    @culvert_only
    @each(family=(4, 6))
    def test_a_peer_without_an_endpoint(self, family: int) -> None:
        """Nobody knows where to send: the same answer."""
        pair = self.pair("responder")  # never told an endpoint, and nobody has called
        self.check_unreachable(pair.ours, self.target(pair, family))

    def target(self, pair: Pair, family: int) -> str:
        return pair.theirs.inner4 if family == 4 else pair.theirs.inner6

    def check_unreachable(self, node: Node, address: str) -> None:
        output = node.namespace.attempt("ping", "-n", "-c", "1", "-W", "5", address).stdout
        self.assertRegex(output, "Destination (Host|unreachable).*(Unreachable|unreachable)")
        # The first of three that is quick enough: the machine may pause during one of them.
        for _ in range(3):
            seconds = self.refusal(node, address)
            if seconds < QUICK:
                break
        self.assertLess(seconds, QUICK)

    def refusal(self, node: Node, address: str) -> float:
        """Seconds until a TCP connection is refused as unreachable."""
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        with node.namespace.socket(family, socket.SOCK_STREAM) as connection:
            connection.settimeout(10)
            start = time.monotonic()
            number = connection.connect_ex((address, 80))
            seconds = time.monotonic() - start
        self.assertEqual(number, errno.EHOSTUNREACH)
        return seconds
