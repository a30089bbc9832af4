"""If the kernel refuses an offload, it is disabled; only the refused packets are lost."""

import time

from harness.case import FAMILIES, InteropCase, culvert_only, each
from harness.lab.faults import Counters, Faults
from harness.lab.namespace import join
from harness.lab.node import Node
from harness.lab.pair import QUEUED, End, Pair, build_tunnel
from harness.traffic.datagrams import Arrivals, send_datagrams
from harness.traffic.ping import ping
from harness.traffic.streams import stream
from harness.waiting import wait_until

REFUSED = "the kernel refuses the offload"
# The queues in front of the tunnel have room for all datagrams: only faults lose any.
DATAGRAMS, RATE, SIZES = 4000, 8000, (900, 1300)
MEGABYTE = 1 << 20
OLD_KERNELS = (
    "set-gro:ENOPROTOOPT:always",
    "set-gro:ENOPROTOOPT:nth/2",
    "set-segment:ENOPROTOOPT:always",
    "uso:EINVAL:always",
    "offload:EINVAL:always",
)


class FaultCase(InteropCase):
    def setUp(self) -> None:
        super().setUp()
        if self.settings.program.is_static:
            self.skipTest("a static program has its own system calls")

    def tunnel(self, *rules: str, options: tuple[str, ...] = (), **shape) -> tuple[Pair, Faults]:
        """A tunnel; the system calls of our end fail by the rules."""
        faults = Faults(*rules)
        ours = End(self.settings.program, options, faults.environment)
        return build_tunnel(self.lab, ours, End(self.settings.program), **shape), faults

    def send(self, source: Node, target: Node, segments: bool = True) -> Arrivals:
        """Numbered datagrams, which the application may send as segments for our end to split."""
        return send_datagrams(
            source, target, target.inner4, DATAGRAMS, SIZES, RATE, segments, segments
        )

    def check_flow(self, pair: Pair) -> None:
        """TCP in both directions; each byte arrives."""
        for source, target in (pair.nodes, pair.nodes[::-1]):
            stream(source, target, target.inner6, 4 * MEGABYTE)

    def check_arrivals(self, arrivals: Arrivals, lost: int) -> None:
        wrong = arrivals.changed, arrivals.doubled, arrivals.late
        self.assertEqual(wrong, (0, 0, 0), f"changed, doubled, late: {arrivals}")
        self.assertEqual(arrivals.lost_count, lost, arrivals)

    def check_told(self, pair: Pair, *offloads: str) -> None:
        """Each of these failures is logged once, and no others are."""
        lines = [line for line in pair.ours.log.splitlines() if REFUSED in line]
        for name in offloads:
            told = [line for line in lines if f"{REFUSED} {name};" in line]
            self.assertEqual(len(told), 1, lines)
        self.assertEqual(len(lines), len(offloads), lines)


class SendingTests(FaultCase):
    @culvert_only
    @each(error=("EIO", "ENOPROTOOPT", "EOPNOTSUPP"), when=("start", "later"))
    def test_R20_segments_refused_for_good(self, error: str, when: str) -> None:
        """No datagram is lost, and no more segments are tried.

        At startup the test over loopback fails; later, sending to the network.
        """
        port = "@51002" if when == "later" else ""
        pair, faults = self.tunnel(f"segments{port}:{error}:always")
        self.check_arrivals(self.send(*pair.nodes), 0)
        self.check_flow(pair)
        self.assertEqual(faults["segments"].failures, 1)
        self.assertEqual(faults.segments_to(51002).calls, 1 if when == "later" else 0)
        self.check_told(pair, "gso")

    @culvert_only
    @each(error=("EINVAL", "EMSGSIZE"))
    def test_R20_segments_refused_to_one_peer(self, error: str) -> None:
        """They are sent to that peer one by one, without loss, and to the other as before."""
        faults = Faults(f"segments@51002:{error}:always")
        pair, third = self.triangle(faults)
        for target in (pair.theirs, third):
            self.check_arrivals(self.send(pair.ours, target), 0)
            stream(pair.ours, target, target.inner4, 4 * MEGABYTE)
        # After a pause they are tried again (R65); without the limit there are more than 50.
        self.assertLess(faults.segments_to(51002).calls, 20)
        self.assertGreater(faults.segments_to(third.port).calls, 50)
        self.assertEqual(faults.segments_to(third.port).failures, 0)
        self.check_told(pair)

    @culvert_only
    @each(error=("ENOBUFS", "EAGAIN", "EPERM"), call=("segments", "sendmsg", "sendmmsg"))
    def test_R20_sends_refused_now_and_then(self, error: str, call: str) -> None:
        """Only the datagrams in that call are lost or retransmitted; no offload is disabled."""
        ways = {"segments": (), "sendmsg": ("--no-offload",), "sendmmsg": ("--offload", "mmsg")}
        pair, faults = self.tunnel(f"{call}:{error}:every/20", options=ways[call])
        before = faults[call]
        arrivals = self.send(*pair.nodes)
        counted = faults[call]
        lost = counted.packets - before.packets
        self.assertGreater(counted.failures, before.failures, counted)
        # The first datagram is then sent alone, which succeeds.
        self.check_arrivals(arrivals, 0 if call == "sendmmsg" else lost)
        self.check_flow(pair)
        self.assertGreater(faults[call].calls, counted.calls + 10)
        self.check_told(pair)

    @culvert_only
    def test_R20_no_sendmmsg(self) -> None:
        """One call for each datagram instead."""
        pair, faults = self.tunnel("sendmmsg:ENOSYS:always", options=("--offload", "mmsg"))
        self.check_arrivals(self.send(*pair.nodes), 0)
        self.check_flow(pair)
        self.assertEqual(faults["sendmmsg"].calls, 1)
        self.check_told(pair, "mmsg")

    @culvert_only
    def test_R20_sendmmsg_in_part(self) -> None:
        """The rest is sent by the next call, in order."""
        pair, faults = self.tunnel("sendmmsg:PARTIAL:always", options=("--offload", "mmsg"))
        self.check_arrivals(self.send(*pair.nodes), 0)
        self.assertGreater(faults["sendmmsg"].calls, 10)
        self.check_flow(pair)
        self.check_told(pair)

    def triangle(self, faults: Faults) -> tuple[Pair, Node]:
        """Our end with two peers; the second is behind a separate link and has port 51003."""
        ours = End(self.settings.program, (), faults.environment)
        pair = build_tunnel(self.lab, ours, End(self.settings.program))
        third = self.lab.node(self.lab.namespace("third"), self.settings.program, "third")
        join(pair.ours.namespace, third.namespace, "other", "outer")
        pair.ours.namespace.ip("addr add 203.0.113.1/24 dev other")
        third.namespace.ip("addr add 203.0.113.3/24 dev outer")
        third.outer4, third.inner4, third.inner6 = "203.0.113.3", "10.7.0.3", "fd07::3"
        third.port = 51003
        third.start()
        third.set("listen-port", "51003", secrets={"private-key": third.keys.private})
        third.add_peer(pair.ours)
        pair.ours.add_peer(third, third.endpoint())
        third.bring_up()
        third.namespace.ip(f"link set {third.interface} txqueuelen {QUEUED}")
        wait_until(lambda: ping(pair.ours, third.inner4, 1).received, "an answer of the third")
        return pair, third


class ReceivingTests(FaultCase):
    @culvert_only
    def test_R37_no_recvmmsg(self) -> None:
        """One call for each datagram instead; none is lost."""
        pair, faults = self.tunnel("recvmmsg:ENOSYS:always", options=("--offload", "mmsg"))
        self.check_arrivals(self.send(*pair.nodes[::-1]), 0)
        self.check_flow(pair)
        # Each of the two sockets tries it once.
        self.assertLessEqual(faults["recvmmsg"].calls, 2)
        self.check_told(pair, "mmsg")

    @culvert_only
    @each(call=("recvmsg", "recvmmsg"), error=("ENOMEM", "ECONNREFUSED"))
    def test_R37_errors_of_receiving_now_and_then(self, call: str, error: str) -> None:
        """Nothing is lost, as nothing was read from the socket."""
        options = () if call == "recvmsg" else ("--offload", "mmsg")
        pair, faults = self.tunnel(f"{call}:{error}:every/7", options=options)
        self.check_arrivals(self.send(*pair.nodes[::-1]), 0)
        self.check_flow(pair)
        self.assertGreater(faults[call].failures, 10)
        self.check_told(pair)


class StartTests(FaultCase):
    @culvert_only
    @each(rule=OLD_KERNELS)
    def test_what_an_old_kernel_lacks(self, rule: str) -> None:
        """The program starts, and traffic flows both ways without it."""
        pair, faults = self.tunnel(rule)
        call = rule.partition(":")[0]
        self.assertGreater(faults[call].failures, 0)
        for ends in (pair.nodes, pair.nodes[::-1]):
            self.check_arrivals(self.send(*ends), 0)
        self.check_flow(pair)
        if call == "set-segment":
            self.assertEqual(faults["segments"].calls, 0)
        if call == "offload":
            self.assertEqual(faults["writev"].calls, 0)

    @culvert_only
    def test_an_interface_without_virtio_headers(self) -> None:
        """TUNSETIFF refuses them: the program starts without them."""
        pair, faults = self.tunnel("vnet:EINVAL:always")
        self.assertEqual(faults["vnet"].failures, 1)
        self.check_flow(pair)
        self.assertEqual(faults["writev"].calls, 0)


class KernelBugTests(FaultCase):
    @culvert_only
    @each(release=("6.19.9", "7.0.0-14-generic", "7.1.4", "7.1.5"), asked=(False, True))
    def test_R63_no_segments_on_kernels_that_corrupt_them(self, release: str, asked: bool) -> None:
        """One line says so; whoever names the offload gets it all the same."""
        faults = Faults()
        environment = faults.environment | {"CULVERT_FAULTS_RELEASE": release}
        options = ("--offload", "all") if asked else ()
        ours = End(self.settings.program, options, environment, level="error")
        pair = build_tunnel(self.lab, ours, End(self.settings.program))
        self.check_arrivals(self.send(*pair.nodes), 0)
        is_avoided = release in ("7.0.0-14-generic", "7.1.4") and not asked
        self.assertEqual(faults["segments"].calls == 0, is_avoided)
        self.assertEqual(pair.ours.log.count("offload gso"), 1 if is_avoided else 0, pair.ours.log)


class DipTests(FaultCase):
    @culvert_only
    @each(outer=FAMILIES)
    def test_R65_segments_return_after_a_dip_of_the_mtu(self, outer: int) -> None:
        """Within seconds, in the same session. During the dip they are hardly tried."""
        pair, faults = self.tunnel(outer=outer)
        before = self.segment_calls(pair, faults)
        self.assertGreater(before, 50)
        handshake = pair.ours.latest_handshake(pair.theirs)
        pair.ours.namespace.ip("link set outer mtu 1280")
        self.assertLess(self.segment_calls(pair, faults), 5)
        pair.ours.namespace.ip("link set outer mtu 1500")
        time.sleep(5)
        self.assertGreater(self.segment_calls(pair, faults), before / 2)
        self.assertEqual(pair.ours.latest_handshake(pair.theirs), handshake)

    def segment_calls(self, pair: Pair, faults: Faults) -> int:
        """The calls with segments for datagrams that are too large for an MTU of 1280."""
        before = faults.segments_to(51002).calls
        sizes = (1290, 1300)
        arrivals = send_datagrams(
            *pair.nodes, pair.theirs.inner4, DATAGRAMS, sizes, RATE, True, True
        )
        self.check_arrivals(arrivals, 0)
        return faults.segments_to(51002).calls - before


class WritingTests(FaultCase):
    @culvert_only
    @each(kind=("tso", "uso"))
    def test_joined_packets_refused(self, kind: str) -> None:
        """The packets of that call are lost; from then on each is written alone."""
        pair, faults = self.tunnel("writev:EINVAL:always")
        lost = 0
        for _ in range(2):
            if kind == "uso":
                arrivals = self.send(*pair.nodes[::-1])
                self.check_arrivals(arrivals, faults["writev"].packets - lost)
                lost = faults["writev"].packets
            else:
                self.check_flow(pair)
                lost = lost or faults["writev"].packets
        self.assertGreater(lost, 0)
        self.assertEqual(faults["writev"].packets, lost)
        self.assertEqual(faults["writev"].failures, 1)
        self.check_told(pair, kind)

    @culvert_only
    def test_joined_packets_refused_now_and_then(self) -> None:
        """An error that is unrelated to joining: only the packets of that write are lost."""
        pair, faults = self.tunnel("writev:ENOBUFS:every/10")
        arrivals = self.send(*pair.nodes[::-1])
        self.assertGreater(faults["writev"].failures, 0)
        self.check_arrivals(arrivals, faults["writev"].packets)
        self.check_flow(pair)
        self.check_told(pair)


class FragmentTests(InteropCase):
    @culvert_only
    @each(outer=FAMILIES, outer_mtu=(1280, 1400))
    def test_datagrams_that_do_not_fit_the_link(self, outer: int, outer_mtu: int) -> None:
        """The kernel refuses such segments (EINVAL); each is sent alone, in fragments."""
        end = End(self.settings.program)
        pair = build_tunnel(self.lab, end, end, outer, 1420, outer_mtu)
        before = [Counters.of(node.namespace) for node in pair.nodes]
        for source, target in (pair.nodes, pair.nodes[::-1]):
            for address in (target.inner4, target.inner6):
                stream(source, target, address, 4 * MEGABYTE)
        for node, earlier in zip(pair.nodes, before):
            counted = Counters.of(node.namespace).since(earlier)
            self.assertEqual(counted.wrong, {}, node.role)
            self.assertLess(counted.retransmitted_share, 0.1, node.role)
            made = counted["Ip.FragCreates"] + counted["Ip6FragCreates"]
            self.assertGreater(made, 1000, f"{node.role}: fragments")
