"""Changes under traffic: addresses, ports, peers, keys, and servers that die and return."""

import contextlib
from collections.abc import Iterator

from harness.case import NestingCase, each, long, quick
from harness.lab.chain import Chain
from harness.lab.control import EVERYTHING
from harness.lab.node import KeyPair, Node
from harness.traffic.flow import Flow
from harness.waiting import wait_until

HOPS = {"entry": 0, "exit": 1}
BACK_PORT = 5402
REKEY_AFTER_SECONDS = 120  # whitepaper 6.2
# Seconds to notice a dead session (15), and for a few tries at intervals of 5.
RECOVERY = 60
ALLOWED = EVERYTHING.replace(" ", "")


class ChangeCase(NestingCase):
    @contextlib.contextmanager
    def flows(
        self, chain: Chain, interval: float = 0.01, grace: float = 0.3
    ) -> Iterator[tuple[Flow, Flow]]:
        """A stream each way, both of which have begun to arrive.

        At the end each stops sending and waits for `grace` seconds of silence.
        """
        with Flow(chain.client, chain.exit, interval) as there:
            with Flow(chain.exit, chain.client, interval, BACK_PORT) as back:
                self.await_progress(there, back)
                yield there, back
                there.finish(grace)
                back.finish(grace)

    def await_progress(self, *flows: Flow, seconds: float = 15) -> None:
        for flow in flows:
            flow.await_progress(seconds=seconds)


class RoamingTests(ChangeCase):
    @quick
    @each(server=tuple(HOPS))
    def test_a_server_told_by_its_new_address(self, server: str) -> None:
        """With `wg set` of only that hop, its session and those inside it stay."""
        chain = self.chain()
        number = HOPS[server]
        end, roaming = chain.ends[number], chain.servers[number]
        handshakes = self.handshakes(chain)
        with self.flows(chain) as flows:
            chain.move_server(number, 3)
            end.set("peer", roaming.keys.public, "endpoint", chain.endpoint(number))
            self.await_progress(*flows)
        self.assertEqual(end.endpoint_of(roaming), f"{roaming.outer4}:{roaming.port}")
        self.assertEqual(self.handshakes(chain), handshakes, "no handshake was needed")

    @each(server=tuple(HOPS))
    def test_a_server_that_moves_is_followed(self, server: str) -> None:
        """From the first packet of its new address and port."""
        chain = self.chain()
        number = HOPS[server]
        end, roaming = chain.ends[number], chain.servers[number]
        with self.flows(chain) as flows:
            chain.move_server(number, 3)
            roaming.set("listen-port", "51999")
            self.await_progress(*flows)
        self.assertEqual(end.endpoint_of(roaming), f"{roaming.outer4}:51999")

    @quick
    def test_the_clients_own_address_changes(self) -> None:
        """The entry learns it, and the exit notices nothing."""
        chain = self.chain()
        known = chain.exit.endpoint_of(chain.client)
        with self.flows(chain) as flows:
            chain.move_client(77)
            self.await_progress(*flows)
        self.assertTrue(chain.entry.endpoint_of(chain.ends[0]).startswith("198.51.101.77:"))
        self.assertEqual(chain.exit.endpoint_of(chain.client), known)

    @quick
    @each(hop=tuple(HOPS))
    def test_a_listen_port_changed(self, hop: str) -> None:
        """Each tunnel has one; that of an inner tunnel is a port inside the outer tunnel."""
        chain = self.chain()
        end, server = chain.ends[HOPS[hop]], chain.servers[HOPS[hop]]
        with self.flows(chain) as flows:
            for port in ("40001", "40002"):
                end.set("listen-port", port)
                self.await_progress(*flows)
                self.assertEqual(end.wg("show", end.interface, "listen-port").strip(), port)
                endpoint = f"{end.outer4}:{port}"
                wait_until(lambda: server.endpoint_of(end) == endpoint, "the new endpoint")

    @each(hop=tuple(HOPS))
    def test_the_family_of_an_endpoint_changes(self, hop: str) -> None:
        """From IPv4 to IPv6 and back, with the same session."""
        chain = self.chain()
        number = HOPS[hop]
        end, server = chain.ends[number], chain.servers[number]
        handshakes = self.handshakes(chain)
        # Traffic in one direction only: the newest packet of either end decides for both.
        with Flow(chain.client, chain.exit) as flow:
            flow.await_progress()
            for family, address in ((6, end.outer6), (4, end.outer4)):
                end.set("peer", server.keys.public, "endpoint", server.endpoint(family))
                flow.await_progress()
                wait_until(lambda: address in server.endpoint_of(end), f"endpoint {address}")
            flow.finish(0.3)
        self.assertEqual(self.handshakes(chain), handshakes, "no handshake was needed")

    def handshakes(self, chain: Chain) -> list[int]:
        return [end.latest_handshake(server) for end, server in zip(chain.ends, chain.servers)]


class PeerTests(ChangeCase):
    @quick
    @each(hop=tuple(HOPS))
    def test_a_peer_removed_and_added_again(self, hop: str) -> None:
        """Without it nothing passes, also in the other tunnel; afterwards everything does again."""
        chain = self.chain()
        number = HOPS[hop]
        end, server = chain.ends[number], chain.servers[number]
        with self.flows(chain) as flows:
            end.set("peer", server.keys.public, "remove")
            self.assertEqual(end.show("peers"), {})
            self.await_silence(*flows)
            self.add(chain, number)
            self.await_progress(*flows)

    @each(hop=tuple(HOPS))
    def test_a_keepalive_keeps_the_tunnel_busy(self, hop: str) -> None:
        """Without any other traffic a keepalive arrives every second at the end of that hop."""
        chain = self.chain()
        end, server = chain.ends[HOPS[hop]], chain.servers[HOPS[hop]]
        before = self.received(server, end)
        end.set("peer", server.keys.public, "persistent-keepalive", "1")
        self.assertEqual(end.show("persistent-keepalive")[server.keys.public], "1")
        # Each is 32 bytes; one of them may be due to earlier traffic.
        wait_until(lambda: self.received(server, end) >= before + 3 * 32, "three keepalives")

    def test_a_key_replaced(self) -> None:
        """The middle hop's key is replaced; the inner session stays."""
        chain = self.chain()
        end, server = chain.ends[0], chain.entry
        inner = chain.client.latest_handshake(chain.exit)
        with self.flows(chain) as flows:
            old, end.keys = end.keys, KeyPair.generate()
            server.add_peer(end, preshared=chain.preshared[0])
            server.set("peer", old.public, "remove")
            end.set_private_key(end.keys.private)
            self.await_progress(*flows, seconds=RECOVERY)
        self.assertEqual(chain.client.latest_handshake(chain.exit), inner)

    def add(self, chain: Chain, number: int) -> None:
        chain.ends[number].add_peer(
            chain.servers[number], chain.endpoint(number), ALLOWED, chain.preshared[number]
        )

    def await_silence(self, *flows: Flow) -> None:
        """Wait until each flow has sent fifty more datagrams and none has arrived."""

        def is_silent() -> bool:
            received, sent = [len(it.received) for it in flows], [it.sent for it in flows]
            for flow, mark in zip(flows, sent):
                wait_until(lambda: flow.sent >= mark + 50, "fifty datagrams sent")
            return received == [len(it.received) for it in flows]

        wait_until(is_silent, "silence after the peer was removed", 5)

    def received(self, node: Node, other: Node) -> int:
        return int(node.show("transfer")[other.keys.public].split()[0])


class RekeyTests(ChangeCase):
    @long
    def test_a_rekey_of_every_hop_loses_nothing(self) -> None:
        """After 120 s each tunnel has another session; every datagram arrives, both ways."""
        chain = self.chain(4, 6, 4)
        pairs = list(zip(chain.ends, chain.servers))
        first = [end.latest_handshake(server) for end, server in pairs]

        def are_renewed() -> bool:
            return all(
                end.latest_handshake(server) >= before + REKEY_AFTER_SECONDS - 5
                for (end, server), before in zip(pairs, first)
            )

        with self.flows(chain, 0.03, grace=2.5) as (there, back):
            wait_until(are_renewed, "second handshakes", REKEY_AFTER_SECONDS + 30, interval=1)
            there.await_progress(30)
            back.await_progress(30)
        self.check_losses(chain, there, back)
        self.assertEqual((there.duplicates, back.duplicates), (0, 0))

    def check_losses(self, chain: Chain, there: Flow, back: Flow) -> None:
        """No datagram is lost, except for those that the peer itself damages."""
        self.assertEqual(there.lost, [])
        # One UDP checksum in 65,536 is computed as zero. wireguard-go forwards it unchanged, which
        # IPv6 forbids (RFC 8200 8.1).
        faults = 0 if chain.entry.program.is_culvert else min(chain.wrong_checksums, 2)
        self.assertLessEqual(len(back.lost), faults, back.lost)


class DeathTests(ChangeCase):
    @long
    @each(server=tuple(HOPS))
    def test_a_server_dies_and_comes_back(self, server: str) -> None:
        """After SIGKILL and a restart, traffic resumes without any change at the client."""
        chain = self.chain()
        number = HOPS[server]
        before = chain.ends[0].latest_handshake(chain.entry)
        with Flow(chain.client, chain.exit) as there:
            there.await_progress()
            chain.kill_server(number)
            chain.start_server(number)
            there.await_progress(seconds=RECOVERY)
            there.finish(0.3)
        with Flow(chain.exit, chain.client) as back:
            back.await_progress()
        # wireguard-go sometimes repeats a handshake that has succeeded.
        if server == "exit" and self.settings.program.is_culvert:
            after = chain.ends[0].latest_handshake(chain.entry)
            self.assertEqual(after, before, f"the session with the entry: {before}")

    @quick
    def test_the_client_dies_and_comes_back(self) -> None:
        """The stale socket files are replaced, and new sessions are established at once."""
        chain = self.chain()
        chain.kill_client()
        chain.start_client()
        chain.handshake()
        self.check_answers(chain)
