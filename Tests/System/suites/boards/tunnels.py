"""Tunnels between boards, and the program's reports if the emulator lacks something."""

import itertools

from harness import procfs
from harness.case import FAMILIES, ROLES, InteropCase, each
from harness.lab.control import UAPIConnection
from harness.lab.lab import Lab
from harness.lab.node import LOGS
from harness.lab.pair import build_pair
from harness.settings import Program
from harness.traffic.ping import ping
from harness.traffic.streams import transfer
from harness.waiting import wait_until
from suites.boards.boards import BOARDS

REFUSED = "cannot set the firewall mark"
NO_SUCH_OPTION = "(ENOPROTOOPT)"


class LackingTests(InteropCase):
    def test_a_mark_that_cannot_be_set_is_reported(self) -> None:
        """The request fails, the log has a line, and the tunnel still works; or the mark is set."""
        pair = self.pair()
        pair.handshake()
        with UAPIConnection(pair.ours.socket_path) as connection:
            answer = connection.set("fwmark=77")
        shown = pair.ours.wg("show", pair.ours.interface, "fwmark").strip()
        if "fwmark" in self.settings.program.lacks:
            self.assertNotEqual(answer, 0)
            wait_until(lambda: REFUSED in pair.ours.log, "a line about the mark")
            self.assertEqual(shown, "off")
        else:
            self.assertEqual((answer, shown), (0, "0x4d"))
        for source, target in (pair.nodes, pair.nodes[::-1]):
            self.assertEqual(ping(source, target.inner4).received, 3)

    def test_a_mark_in_a_file_is_reported(self) -> None:
        """The program starts nevertheless; the log names the mark, as the port is free."""
        node = self.node()
        path = LOGS / f"{node.interface}.conf"
        path.touch(0o600)
        path.write_text(f"""[Interface]
PrivateKey = {node.keys.private}
Address = {node.inner4}/24
ListenPort = {node.port}
FwMark = 77
""")
        node.start(options=("--config", str(path)))
        if "fwmark" in self.settings.program.lacks:
            wait_until(lambda: REFUSED in node.log, "a line about the mark")
        else:
            self.assertEqual(node.wg("show", node.interface, "fwmark").strip(), "0x4d")
            self.assertNotIn(REFUSED, node.log)

    def test_a_plain_start_reports_nothing(self) -> None:
        """The emulator has everything that the program needs, or the log would have an error."""
        pair = self.pair()
        pair.handshake()
        self.assertNotIn("ERROR", pair.ours.log)
        self.assertNotIn("cannot", pair.ours.log)


def find_lacks(program: Program) -> dict[str, str]:
    """Features that the program's system lacks, according to the program's log."""
    lab = Lab()
    try:
        node = lab.node(lab.namespace("probe"), program, "probe")
        node.start()
        node.set("listen-port", "41000")
        node.namespace.ip(f"link set {node.interface} up")
        # Without a socket a mark is only stored.
        wait_until(lambda: procfs.udp_sockets(node.pid), "open sockets")
        with UAPIConnection(node.socket_path) as connection:
            is_refused = connection.set("fwmark=1") != 0
        if not is_refused:
            return {}
        # The helper process writes the log, so the line may follow the reply.
        wait_until(
            lambda: REFUSED in node.log and NO_SUCH_OPTION in node.log, "the reason of the refusal"
        )
        return {"fwmark": "the emulator has no SO_MARK"}
    finally:
        complaints = lab.close()
        assert not complaints, complaints


# Each board with each other board.

PAIRS = tuple("_".join(pair) for pair in itertools.combinations(BOARDS, 2))


class NeighbourTests(InteropCase):
    @each(boards=PAIRS, role=ROLES)
    def test_two_boards(self, boards: str, role: str) -> None:
        """Pings and bytes compared by SHA-256, both families inside and outside, both ways."""
        left, right = (BOARDS[name].program() for name in boards.split("_"))
        # IPv4 for one role, IPv6 for the other: either end initiates, over either family.
        outer = FAMILIES[ROLES.index(role)]
        pair = build_pair(self.lab, left, right, role, outer=outer, psk=True)
        pair.handshake(30)
        for source, target in (pair.nodes, pair.nodes[::-1]):
            for address in (target.inner4, target.inner6):
                self.assertEqual(ping(source, address).received, 3)
                transfer(source, target, address, 2 << 20)
            self.assertGreater(source.latest_handshake(target), 0)
