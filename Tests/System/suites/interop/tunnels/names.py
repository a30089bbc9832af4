"""Endpoints by host name: name servers that are dead, and names whose addresses change."""

import contextlib
import signal
import socket
import struct
import threading
import time
from collections.abc import Iterator

from harness import isolation, procfs
from harness.case import InteropCase, culvert_only, each, long
from harness.lab.namespace import Namespace
from harness.lab.node import LOGS, KeyPair, Node
from harness.lab.pair import place
from harness.traffic.ping import ping
from harness.waiting import wait_until

CLONE_NEWNS, MS_BIND = 0x20000, 0x1000
A, LIFE = 1, 5  # the type of IPv4 addresses; seconds that they may be remembered
NAME = "vpn.example"
QUIET, WATCHED = 30, 10  # seconds until all timers have run out, and of watching after that


class NameServer:
    """Answers queries at 127.0.0.1 of a namespace from `addresses`, which tests change."""

    def __init__(self, namespace: Namespace, addresses: list[str] | None):
        self.addresses = addresses  # none: SERVFAIL
        self.is_silent = False
        self.queries = 0
        self.socket = namespace.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.bind(("127.0.0.1", 53))
        self.socket.settimeout(0.2)
        self.is_ended = False
        self.thread = threading.Thread(target=self.serve, daemon=True)
        self.thread.start()

    def close(self) -> None:
        self.is_ended = True
        self.thread.join()
        self.socket.close()

    def serve(self) -> None:
        while not self.is_ended:
            with contextlib.suppress(OSError):
                query, sender = self.socket.recvfrom(2048)
                self.queries += 1
                if not self.is_silent:
                    self.socket.sendto(self.answer(query), sender)

    def answer(self, query: bytes) -> bytes:
        end = query.index(0, 12) + 5
        (kind,) = struct.unpack_from("!H", query, end - 4)
        addresses = self.addresses if kind == A and self.addresses else []
        flags = 0x8180 if self.addresses is not None else 0x8182
        head = query[:2] + struct.pack("!HHHHH", flags, 1, len(addresses), 0, 0)
        records = [
            struct.pack("!HHHIH", 0xC00C, A, 1, LIFE, 4) + socket.inet_aton(address)
            for address in addresses
        ]
        return head + query[12:end] + b"".join(records)


class NameTests(InteropCase):
    @culvert_only
    @each(servers=("silent", "refusing"))
    def test_R44_dead_name_servers_hold_nothing_up(self, servers: str) -> None:
        """A peer with an address works, `wg show` answers, and signals end the program."""
        ours, theirs = self.build()
        with self.name_server(ours, None) as server:
            server.is_silent = servers == "silent"
            gone = f"[Peer]\nPublicKey = {KeyPair.generate().public}\nEndpoint = {NAME}:51820\n"
            self.start(ours, theirs, theirs.endpoint(), gone)
            wait_until(lambda: server.queries > 0, "a query")
            self.handshake(ours, theirs)
            self.assertEqual(ping(ours, theirs.inner4, 50).received, 50)
            self.assertLess(min(self.seconds_of_show(ours) for _ in range(3)), 0.1)
            if servers == "refusing":
                line = f"cannot look up {NAME} for peer("
                wait_until(lambda: line in ours.log, "a line about the name")
                self.assertEqual(ours.log.count(line), 1)
            begin = time.monotonic()
            status = ours.stop(signal.SIGTERM if servers == "silent" else signal.SIGINT)
            self.assertEqual(status, 0)
            self.assertLess(time.monotonic() - begin, 1)

    @culvert_only
    def test_R44_a_name_that_is_known_later_is_used(self) -> None:
        """The first lookup is refused; a later one has the address, and nothing is restarted."""
        ours, theirs = self.build()
        with self.name_server(ours, None) as server:
            self.start(ours, theirs, f"{NAME}:{theirs.port}")
            wait_until(lambda: server.queries > 0, "a query")
            self.assertEqual(ours.endpoint_of(theirs), "(none)")
            server.addresses = [theirs.outer4]
            self.handshake(ours, theirs)
            self.assertEqual(ours.endpoint_of(theirs), theirs.endpoint())

    @culvert_only
    @long
    def test_R45_a_server_that_moves_is_reached_again(self) -> None:
        """Within 60 s of moving with its DNS record; the port that it sees stays the same."""
        ours, theirs = self.build()
        with self.name_server(ours, [theirs.outer4]) as server:
            self.start(ours, theirs, f"{NAME}:{theirs.port}")
            self.handshake(ours, theirs)
            before = server.queries, theirs.endpoint_of(ours)
            # Their end sends nothing of its own accord from its new address, as behind a firewall.
            theirs.namespace.nft("""
                table inet quiet {
                    chain output {
                        type filter hook output priority 0;
                        oifname outer ct state new drop
                    }
                }
            """)
            theirs.namespace.ip(
                "addr del 198.51.100.2/24 dev outer", "addr add 198.51.100.3/24 dev outer"
            )
            server.addresses = ["198.51.100.3"]
            self.handshake(ours, theirs, 60)
            self.assertEqual(ours.endpoint_of(theirs), f"198.51.100.3:{theirs.port}")
            self.assertEqual(theirs.endpoint_of(ours), before[1])
            # Once for each family, or once more if a query was lost.
            self.assertLess(server.queries - before[0], 5)

    @culvert_only
    def test_R45_every_address_of_a_name_is_tried(self) -> None:
        """The first address belongs to nobody."""
        ours, theirs = self.build()
        with self.name_server(ours, ["198.51.100.77", theirs.outer4]):
            self.start(ours, theirs, f"{NAME}:{theirs.port}")
            self.handshake(ours, theirs, 30)
            self.assertEqual(ours.endpoint_of(theirs), theirs.endpoint())

    @culvert_only
    @long
    def test_R45_an_endpoint_that_a_user_sets_replaces_the_name(self) -> None:
        """It is not looked up again, although the peer is silent."""
        ours, theirs = self.build()
        with self.name_server(ours, [theirs.outer4]) as server:
            self.start(ours, theirs, f"{NAME}:{theirs.port}")
            self.handshake(ours, theirs)
            before = server.queries
            ours.set("peer", theirs.keys.public, "endpoint", f"{theirs.outer4}:9")
            # A new key ends the session, so that initiations are sent, to nobody.
            ours.set_private_key(KeyPair.generate().private)
            end = time.monotonic() + 25
            while time.monotonic() < end:
                ping(ours, theirs.inner4, 1, wait=0.5)
            self.assertGreater(ours.log.count("Sending handshake initiation"), 4)
            self.assertEqual(server.queries, before)

    @culvert_only
    @long
    def test_R45_an_idle_tunnel_with_a_name_never_wakes(self) -> None:
        """Nor does it ask for the name again."""
        ours, theirs = self.build(host_ipv6=False)  # IPv6 would send multicasts by itself
        with self.name_server(ours, [theirs.outer4]) as server:
            self.start(ours, theirs, f"{NAME}:{theirs.port}")
            self.handshake(ours, theirs)
            before = server.queries
            time.sleep(QUIET)
            # The `wg show all` of another test also queries this process and wakes it up.
            for _ in range(3):
                asleep = procfs.wake_ups(ours.pid), procfs.cpu_seconds(ours.pid)
                time.sleep(WATCHED)
                later = procfs.wake_ups(ours.pid), procfs.cpu_seconds(ours.pid)
                if later == asleep:
                    break
            self.assertEqual(later, asleep)
            self.assertEqual(server.queries, before)

    # Building

    def build(self, host_ipv6: bool = True) -> tuple[Node, Node]:
        """Our end, not started, and their end, running."""
        left, right = self.lab.namespace("ours"), self.lab.namespace("theirs")
        if not host_ipv6:
            left.disable_ipv6()
            right.disable_ipv6()
        self.lab.connect(left, right)
        ours = self.lab.node(left, self.settings.program, "ours")
        theirs = self.lab.node(right, self.settings.peer, "theirs")
        place(ours, theirs, inner6=host_ipv6)
        theirs.start()
        theirs.set("listen-port", str(theirs.port), secrets={"private-key": theirs.keys.private})
        theirs.add_peer(ours)
        theirs.bring_up()
        return ours, theirs

    @contextlib.contextmanager
    def name_server(self, node: Node, addresses: list[str] | None) -> Iterator[NameServer]:
        server = NameServer(node.namespace, addresses)
        try:
            yield server
        finally:
            server.close()

    def start(self, ours: Node, theirs: Node, endpoint: str, more: str = "") -> None:
        """Start our end from a file, with a resolv.conf of its own."""
        path = LOGS / f"{ours.interface}.conf"
        path.touch(0o600)
        path.write_text(f"""[Interface]
Address = {ours.inner4}/24
PrivateKey = {ours.keys.private}
ListenPort = {ours.port}

[Peer]
PublicKey = {theirs.keys.public}
AllowedIPs = {theirs.inner4}/32
Endpoint = {endpoint}

{more}""")
        servers = LOGS / f"{ours.interface}.resolv"
        servers.write_text("nameserver 127.0.0.1\n")

        def mount() -> None:
            isolation.check(isolation.libc.unshare(CLONE_NEWNS), "unshare")
            isolation.mount(str(servers), "/etc/resolv.conf", "none", MS_BIND)

        ours.start(options=("--config", str(path)), preexec_fn=mount)

    def handshake(self, ours: Node, theirs: Node, seconds: float = 15) -> None:
        wait_until(
            lambda: ping(ours, theirs.inner4, 1, wait=0.5).received, "an answer", seconds
        )

    def seconds_of_show(self, node: Node) -> float:
        begin = time.monotonic()
        node.wg("show", node.interface)
        return time.monotonic() - begin
