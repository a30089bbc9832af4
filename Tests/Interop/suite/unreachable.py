"""Programs inside learn at once that there is no way, instead of waiting."""

import errno
import socket
import time

from harness.case import InteropCase, culvert_only, each
from harness.node import Node
from harness.pair import Pair

QUICK = 1.0  # seconds; a timeout takes many more
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
        output = node.namespace.attempt("ping", "-n", "-c", "1", "-W", "1", address).stdout
        self.assertRegex(output, "Destination (Host|unreachable).*(Unreachable|unreachable)")
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        with node.namespace.socket(family, socket.SOCK_STREAM) as connection:
            connection.settimeout(5)
            start = time.monotonic()
            number = connection.connect_ex((address, 80))
        self.assertEqual(number, errno.EHOSTUNREACH)
        self.assertLess(time.monotonic() - start, QUICK)
