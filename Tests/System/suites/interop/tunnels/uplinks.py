"""Routes that move between two uplinks, which accept only their own source addresses."""

import threading
import time
from collections.abc import Callable

from harness import procfs
from harness.case import FAMILIES, ROLES, InteropCase, alone, culvert_only, each
from harness.lab.chain import Chain, Shape
from harness.lab.forward import (
    THEIR_PORT,
    Client,
    EchoServer,
    ForwardLab,
    add_forward,
    introduce,
    start_peer,
)
from harness.lab.namespace import Namespace
from harness.lab.node import Node
from harness.lab.uplinks import Uplinks, address, leave_by, switch, tighten
from harness.settings import Program
from harness.traffic.ping import ping
from harness.waiting import wait_until

INTERVAL = 0.05  # seconds between two pings
PINGS = 40
BEFORE = 0.25  # seconds of traffic before the move
GAP = 1.0  # seconds that a move may cost
STORM = 3  # seconds


class UplinkCase(InteropCase):
    def check_gap(self, move: Callable[[], None], source: Node, target: Node) -> None:
        """Ping while something moves; no pause between two answers is too long."""
        with Later(move):
            result = ping(source, target.inner4, PINGS, interval=INTERVAL, wait=0.5)
        self.assertLessEqual(result.longest_gap(PINGS) * INTERVAL, GAP, result)

    def build(
        self, role: str, outer: int, peer: Program | None = None, far_links: tuple[int, ...] = (3,)
    ) -> tuple[Node, Node]:
        """(ours behind two uplinks, theirs), with a session by way of the first uplinks."""
        self.near, self.far = self.lab.namespace("near"), self.lab.namespace("far")
        Uplinks(self.lab, self.near, self.far, far_links=far_links)
        ours = self.lab.node(self.near, self.settings.program, "ours")
        theirs = self.lab.node(self.far, peer or self.settings.peer, "theirs")
        for number, link, node in ((1, 1, ours), (2, far_links[0], theirs)):
            node.outer4, node.outer6, node.port = address(link, 4), address(link, 6), 51820
            node.inner4, node.inner6 = f"10.7.0.{number}", f"fd07::{number}"
            node.start()
            node.set("listen-port", "51820", secrets={"private-key": node.keys.private})
        initiator, responder = (ours, theirs)[:: 1 if role == "initiator" else -1]
        initiator.add_peer(responder, responder.endpoint(outer))
        responder.add_peer(initiator)
        for node in (ours, theirs):
            node.bring_up()
        wait_until(lambda: ping(initiator, responder.inner4, 1).received, "a session")
        return ours, theirs


class Later:
    """Calls a function during the block; an exception of it is raised at the end."""

    def __init__(self, function: Callable[[], None]):
        self.function, self.error = function, None
        self.timer = threading.Timer(BEFORE, self.run)

    def run(self) -> None:
        try:
            self.function()
        except BaseException as error:
            self.error = error

    def __enter__(self) -> None:
        self.timer.start()

    def __exit__(self, *_error) -> None:
        self.timer.join()
        if self.error:
            raise self.error


class UplinkTests(UplinkCase):
    @culvert_only
    @each(role=ROLES, outer=FAMILIES, dies=(False, True))
    def test_R40_a_route_that_moves_is_followed(self, role: str, outer: int, dies: bool) -> None:
        """The default route moves to the other uplink and back, and the old link stays or dies."""
        ours, theirs = self.build(role, outer)
        # One link loses its IPv6 address when it goes down, and the other one keeps it.
        self.near.set_sysctl("net/ipv6/conf/up2/keep_addr_on_down", "1")
        # If the link dies, the other end cannot know the new address before we send.
        ends = (ours, theirs) if dies or role == "initiator" else (theirs, ours)
        for old, new in ((1, 2), (2, 1)):
            self.check_gap(lambda: self.move(old, new, dies), *ends)
            self.check_endpoint(theirs, ours, new, outer)

    @culvert_only
    @each(role=ROLES, outer=FAMILIES)
    def test_R40_a_host_with_a_strict_filter(self, role: str, outer: int) -> None:
        """Datagrams to the old address do not arrive, although the old link stays."""
        ours, theirs = self.build(role, outer)
        tighten(self.near)
        for link in (2, 1):
            self.check_gap(lambda: leave_by(self.near, link), ours, theirs)
            self.check_endpoint(theirs, ours, link, outer)

    @culvert_only
    @each(outer=FAMILIES)
    def test_R40_both_ends_move_at_once(self, outer: int) -> None:
        ours, theirs = self.build("initiator", outer, self.settings.program, far_links=(3, 4))

        def move(near: int, far: int) -> None:
            leave_by(self.near, near)
            leave_by(self.far, far)

        for near, far in ((2, 4), (1, 3)):
            self.check_gap(lambda: move(near, far), ours, theirs)
            self.check_endpoint(theirs, ours, near, outer)
            self.check_endpoint(ours, theirs, far, outer)

    @alone
    @culvert_only
    @each(outer=FAMILIES, dies=(False, True))
    def test_R40_an_address_that_the_peer_chose(self, outer: int, dies: bool) -> None:
        """The peer reaches us at an address that the routing table would not choose."""
        ours, theirs = self.build("responder", outer)
        second = "192.168.1.3" if outer == 4 else "2001:db8:1::3"
        # Of two IPv6 addresses the one that was added last would be chosen.
        flags = "/24" if outer == 4 else "/128 nodad preferred_lft 0"
        self.near.ip(f"addr add {second}{flags} dev up1")
        at = f"{second}:51820" if outer == 4 else f"[{second}]:51820"
        theirs.set("peer", ours.keys.public, "endpoint", at)
        self.assertEqual(ping(theirs, ours.inner4).received, 3)
        self.assertEqual(theirs.endpoint_of(ours), at)
        # The news of the new address is not followed by other news.
        time.sleep(1)
        self.check_gap(lambda: self.move(1, 2, dies), ours, theirs)
        self.check_endpoint(theirs, ours, 2, outer)

    @culvert_only
    @each(outer=FAMILIES)
    def test_R40_a_firewall_mark_with_its_own_route(self, outer: int) -> None:
        """`wg set fwmark` moves the datagrams to the other uplink; the routes stay."""
        ours, theirs = self.build("responder", outer)
        way = "192.168.2.1" if outer == 4 else "2001:db8:2::1"
        self.near.run("ip", f"-{outer}", *f"route add default via {way} table 7".split())
        self.near.run("ip", f"-{outer}", *"rule add fwmark 7 lookup 7".split())
        for mark, link in (("7", 2), ("0", 1)):
            self.check_gap(lambda: ours.set("fwmark", mark), theirs, ours)
            self.check_endpoint(theirs, ours, link, outer)

    @culvert_only
    @each(outer=FAMILIES)
    def test_R40_the_first_response_to_the_wrong_uplink(self, outer: int) -> None:
        """A peer that knows only the old address is answered at once, not after 5 s."""
        ours, theirs = self.build("responder", outer)
        leave_by(self.near, 2)
        time.sleep(2 * BEFORE)
        # A peer of which ours has never heard, so nothing is known about the route to it.
        theirs.set("peer", ours.keys.public, "remove")
        ours.set("peer", theirs.keys.public, "remove")
        theirs.set_private_key(theirs.keys.private)
        ours.add_peer(theirs)
        theirs.add_peer(ours, ours.endpoint(outer))
        start = time.monotonic()
        self.assertEqual(ping(theirs, ours.inner4, 1).received, 1)
        self.assertLess(time.monotonic() - start, GAP)
        self.check_endpoint(theirs, ours, 2, outer)

    def move(self, old: int, new: int, dies: bool) -> None:
        if dies:
            switch(self.near, old, new)
        else:
            leave_by(self.near, new)

    def check_endpoint(self, node: Node, other: Node, link: int, outer: int) -> None:
        at = address(link, outer)
        expected = f"{at}:51820" if outer == 4 else f"[{at}]:51820"
        wait_until(lambda: node.endpoint_of(other) == expected, f"{expected} as endpoint", 1)


class UplinkChain(Chain):
    """A chain whose client has two uplinks."""

    def join_leg(self, number: int) -> None:
        if number > 0:
            return super().join_leg(number)
        entry = self.servers[0]
        Uplinks(self.lab, self.home, entry.namespace)
        entry.outer4, entry.outer6 = address(3, 4), address(3, 6)
        return None


class NestedUplinkTests(UplinkCase):
    @culvert_only
    @each(outer=FAMILIES)
    def test_R40_the_outermost_hop_follows_the_route(self, outer: int) -> None:
        chain = UplinkChain(
            self.lab, self.settings.program, self.settings.peer, Shape(families=(outer, 4))
        )
        chain.start_client()
        chain.handshake()
        for link in (2, 1):
            self.check_gap(lambda: leave_by(chain.home, link), chain.client, chain.exit)


class ForwardUplinkTests(UplinkCase):
    @culvert_only
    @each(outer=FAMILIES)
    def test_R40_forward_follows_the_route(self, outer: int) -> None:
        """Without any rights."""
        near, far = self.lab.namespace("near"), self.lab.namespace("far")
        Uplinks(self.lab, near, far)
        theirs = start_peer(self.lab, far, self.settings.peer, THEIR_PORT)
        theirs.outer4, theirs.outer6 = address(3, 4), address(3, 6)
        forward = add_forward(self.lab, near, self.settings.program)
        introduce(forward, theirs, theirs.endpoint(outer))
        lab = ForwardLab(forward, theirs)
        mapping = lab.mapping(7000, 7007)
        forward.start([mapping])
        with EchoServer(theirs, 7007), Client(forward, mapping) as client:
            self.assertIsNotNone(client.ask(b"first"))
            for link in (2, 1):
                with Later(lambda: leave_by(near, link)):
                    self.assertLessEqual(longest_gap(client), GAP)


def longest_gap(client: Client) -> float:
    """Seconds without an answer, while the client asks as often as a ping does."""
    current = longest = 0
    for _ in range(PINGS):
        start = time.monotonic()
        current = current + 1 if client.ask(b"?", INTERVAL) is None else 0
        longest = max(longest, current)
        time.sleep(max(0, start + INTERVAL - time.monotonic()))
    return longest * INTERVAL


class NewsTests(UplinkCase):
    @culvert_only
    def test_R40_a_storm_of_news_wakes_seldom(self) -> None:
        """Routes change all the time, and have nothing to do with the peer."""
        ours, _ = self.build("responder", 4)
        before, start, changes = procfs.wake_ups(ours.pid), time.monotonic(), 0
        while time.monotonic() - start < STORM:
            lines = [f"route {verb} 10.99.{it}.0/24 dev up1" for verb in ("add", "del")
                     for it in range(20)]  # fmt: skip
            self.near.ip(*lines)
            changes += len(lines)
        woken = procfs.wake_ups(ours.pid) - before
        self.assertGreater(changes, 100 * STORM)
        # Three checks a second after the first eight, each with a wake-up for the news and one for
        # the timer.
        self.assertLessEqual(woken, 2 * (4 * STORM + 10))
        self.assertGreaterEqual(woken, STORM)
