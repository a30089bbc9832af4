"""Packets that are lost, late and doubled on one leg or the other, single fragments as well."""

from harness.case import FAMILIES, each, heavy, long
from harness.chain import Chain, Shape
from harness.deadline import wait_until
from harness.echo import ping
from harness.nesting_case import NestingCase

LEGS = {"entry": 0, "exit": 1}
BAD = {"loss": 0.01, "jitter": 0.003, "double": 0.01}
SMALLEST_LINK = {4: 576, 6: 1280}
DATAGRAMS, SIZES = 1000, (64, 1200)


class BadNetworkTests(NestingCase):
    @heavy
    @each(leg=tuple(LEGS), exit=FAMILIES)
    def test_loss_and_reordering(self, leg: str, exit: int) -> None:
        """TCP arrives unchanged; of single datagrams most arrive, once each."""
        chain = self.chain(4, exit, mtus=(1500, SMALLEST_LINK[exit]), bad=(LEGS[leg],))
        for ends in self.ways(chain):
            self.await_large(*ends, SIZES[1])
        link, before = chain.bad_links[LEGS[leg]], chain.reassembled
        link.worsen(**BAD)
        for source, target in self.ways(chain):
            arrivals = self.send(source, target, DATAGRAMS, SIZES)
            self.assertEqual((arrivals.changed, arrivals.doubled), (0, 0), arrivals)
            # Of three fragments, each may be lost.
            self.assertGreater(arrivals.received, 0.85 * DATAGRAMS, arrivals)
        self.check_bytes(chain, 1 << 18)
        self.assertGreater(chain.reassembled, before)
        passage = link.finish()
        self.assertGreater(min(passage.lost, passage.late, passage.doubled), 10, passage)

    @long
    def test_handshakes_succeed_in_spite_of_loss(self) -> None:
        """One packet in seven is lost on both legs; sessions come up, one in the other."""
        chain = Chain(
            self.lab, self.settings.program, self.settings.peer, Shape((4, 6), bad=(0, 1))
        )
        for link in chain.bad_links.values():
            link.worsen(loss=0.15)
        chain.start_client()
        client, address = chain.client, chain.exit.inner4
        wait_until(lambda: ping(client, address, 1, wait=0.5).received, "an answer", 90)
        for link in chain.bad_links.values():
            link.worsen(loss=0.01)
        self.check_bytes(chain, 50_000)
        for link in chain.bad_links.values():
            self.assertGreater(link.finish().lost, 0)
