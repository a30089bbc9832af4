"""Tunnels inside tunnels carry everything, over both families, through two to four hops."""

from harness.case import FAMILIES, culvert_only, each, heavy, quick
from harness.chain import Chain
from harness.nesting_case import NestingCase
from harness.traffic import Throughput, iperf

SLOWEST = 5  # Mbit/s of TCP on any machine
BULK, PACED = 4 << 20, 1 << 19  # bytes
SERVERS = ("peer", "program")
FAMILIES_OF_HOPS = {2: (4, 6), 3: (6, 4, 4), 4: (4, 4, 4, 4)}


class TrafficTests(NestingCase):
    @heavy
    @each(entry=FAMILIES, exit=FAMILIES)
    def test_ping_tcp_and_udp(self, entry: int, exit: int) -> None:
        """Both families inside and outside, in both directions."""
        chain = self.chain(entry, exit)
        self.check_answers(chain)
        for address in self.addresses(chain.exit):
            for reverse in (False, True):
                self.check_iperf(chain, address, reverse)

    @quick
    def test_bytes_arrive_unchanged(self) -> None:
        """By SHA-256, some megabytes each way."""
        self.check_bytes(self.chain(), 3 << 20)

    @each(exit=FAMILIES)
    def test_ours_as_servers(self, exit: int) -> None:
        """Culvert at all ends."""
        chain = self.chain(4, exit, server=self.settings.program)
        self.check_answers(chain)
        self.check_bytes(chain)

    @each(hops=(3, 4))
    def test_more_hops(self, hops: int) -> None:
        """One process, any number of tunnels."""
        chain = self.chain(*FAMILIES_OF_HOPS[hops])
        self.assertEqual(len(chain.servers), hops)
        self.check_answers(chain)
        self.check_bytes(chain)
        for end, server in zip(chain.ends, chain.servers):
            self.assertGreater(end.latest_handshake(server), 0, server.role)

    @culvert_only
    @heavy
    @each(workers=(1, 2, 4))
    def test_workers(self, workers: int) -> None:
        """Whatever their number, datagrams come unchanged and in order."""
        chain = self.chain(options=("--workers", str(workers)))
        for source, target in self.ways(chain):
            self.check_arrivals(self.send(source, target, 2000, (64, 1300)))
        self.check_bytes(chain)

    @culvert_only
    @each(profile=("tiny", "gateway"))
    def test_profiles(self, profile: str) -> None:
        chain = self.chain(options=("--profile", profile))
        self.check_answers(chain)
        self.check_bytes(chain)

    def check_iperf(self, chain: Chain, address: str, reverse: bool) -> None:
        def run(**options) -> Throughput:
            return iperf(chain.client, chain.exit, address, reverse=reverse, **options)

        where = f"{address}, reverse: {reverse}"
        self.assertGreater(run(byte_count=BULK).megabits, SLOWEST, where)
        # A busy machine loses some now and then.
        lost = 100.0
        for _ in range(4):
            paced = run(udp_rate="10M", length=1200, byte_count=PACED)
            lost = min(lost, paced.lost_percent)
            if lost < 1:
                break
        self.assertLess(lost, 1, where)
