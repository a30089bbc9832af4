"""Each board against each other board."""

import itertools

from harness.case import FAMILIES, ROLES, InteropCase, each
from harness.echo import ping
from harness.pair import build_pair
from harness.traffic import transfer

from emulated.boards import BOARDS

PAIRS = tuple("_".join(pair) for pair in itertools.combinations(BOARDS, 2))


class NeighbourTests(InteropCase):
    @each(boards=PAIRS, role=ROLES)
    def test_two_boards(self, boards: str, role: str) -> None:
        """Pings and bytes compared by SHA-256, both families inside and outside, both ways."""
        left, right = (BOARDS[name].program() for name in boards.split("_"))
        # IPv4 for one role, IPv6 for the other: either end calls, over either family.
        outer = FAMILIES[ROLES.index(role)]
        pair = build_pair(self.lab, left, right, role, outer=outer, psk=True)
        pair.handshake(30)
        for source, target in (pair.nodes, pair.nodes[::-1]):
            for address in (target.inner4, target.inner6):
                self.assertEqual(ping(source, address).received, 3)
                transfer(source, target, address, 2 << 20)
            self.assertGreater(source.latest_handshake(target), 0)
