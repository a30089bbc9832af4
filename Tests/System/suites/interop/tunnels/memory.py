"""Memory stays within its limits, and an idle tunnel never wakes up."""

import base64
import ipaddress
import os
import time

from harness import procfs
from harness.case import InteropCase, culvert_only, each, heavy, long
from harness.lab.node import LOGS, Node
from harness.lab.pair import Pair
from harness.traffic.ping import ping
from harness.traffic.streams import iperf

LIMITS = {"standard": 8 << 20, "tiny": 2 << 20}  # bytes of resident memory
QUIET = 30  # seconds after the last packet until keepalive and handshake timers have run out
WATCHED = 10


class MemoryTests(InteropCase):
    @culvert_only
    @heavy
    @each(profile=tuple(LIMITS))
    def test_resident_memory_under_load(self, profile: str) -> None:
        """The greatest resident memory after TCP and UDP in both directions."""
        pair = self.pair(profile=profile)
        pair.handshake()
        for reverse in (False, True):
            iperf(pair.ours, pair.theirs, pair.theirs.inner4, reverse=reverse)
            iperf(pair.ours, pair.theirs, pair.theirs.inner6, udp_rate="100M", reverse=reverse)
        program = self.settings.program
        if program.is_static:
            used = pair.ours.peak_memory
        else:
            # With Swift's runtime in shared libraries, only the process's own memory counts.
            used = procfs.anonymous_memory(pair.ours.pid)
        self.assertLess(used, LIMITS[profile])


class IdleTests(InteropCase):
    @culvert_only
    @long
    def test_an_idle_tunnel_with_a_session_never_wakes(self) -> None:
        """No thread wakes up for ten seconds, after the session's own timers have expired."""
        pair = self.pair(host_ipv6=False)  # IPv6 would send multicasts by itself
        pair.handshake()
        time.sleep(QUIET)
        self.check_asleep(pair.ours.pid)

    @culvert_only
    @long
    def test_an_idle_tunnel_without_a_session_never_wakes(self) -> None:
        """Configured, up, and waiting for a handshake."""
        pair = self.pair("responder", host_ipv6=False)
        time.sleep(3)
        self.check_asleep(pair.ours.pid)

    def check_asleep(self, pid: int) -> None:
        # The `wg show all` of another test also queries this process and wakes it up.
        for _ in range(3):
            before = procfs.wake_ups(pid), procfs.cpu_seconds(pid)
            time.sleep(WATCHED)
            after = procfs.wake_ups(pid), procfs.cpu_seconds(pid)
            if after == before:
                break
        self.assertEqual(after, before)


# Many peers and very many allowed IPs.

PEERS, IPS_PER_PEER = 40, 52
MANY = 130_561


class CapacityTests(InteropCase):
    def test_forty_peers_with_52_allowed_ips_each(self) -> None:
        """`wg setconf` accepts all, `wg show` prints all, and the only peer that exists works."""
        pair = self.pair()
        ours, theirs = pair.nodes
        expected = {
            base64.b64encode(os.urandom(32)).decode(): addresses(number)
            for number in range(PEERS - 1)
        }
        real = addresses(PEERS)[: IPS_PER_PEER - 2] + theirs.allowed_ips.split(",")
        expected[theirs.keys.public] = real
        self.set_configuration(pair, expected)
        told = ours.show("allowed-ips")
        self.assertEqual(
            {key: set(ips.split()) for key, ips in told.items()},
            {key: set(ips) for key, ips in expected.items()},
        )
        pair.handshake()
        self.assertEqual(ping(ours, theirs.inner6).received, 3)

    @heavy
    def test_130561_allowed_ips_on_one_peer(self) -> None:
        """A gateway's routing table is set and printed; traffic matches its last entry."""
        pair = self.pair(profile="gateway")
        ours, theirs = pair.nodes
        first = int(ipaddress.ip_address("100.64.0.0"))
        ips = [f"{ipaddress.ip_address(first + number)}/32" for number in range(MANY - 2)]
        last = ips[-1].partition("/")[0]
        self.set_configuration(pair, {theirs.keys.public: ips + theirs.allowed_ips.split(",")})
        told = ours.show("allowed-ips")[theirs.keys.public].split()
        self.assertEqual(len(told), MANY)
        self.assertEqual(set(told), {*ips, *theirs.allowed_ips.split(",")})
        theirs.namespace.ip(f"addr add {last}/32 dev {theirs.interface}")
        ours.namespace.ip(f"route add {last} dev {ours.interface}")
        pair.handshake()
        self.assertEqual(ping(ours, last).received, 3)

    def set_configuration(self, pair: Pair, peers: dict[str, list[str]]) -> None:
        """Replace our end's whole configuration by `wg setconf`."""
        ours, theirs = pair.nodes
        lines = ["[Interface]", f"PrivateKey = {ours.keys.private}", f"ListenPort = {ours.port}"]
        for key, ips in peers.items():
            lines += ["[Peer]", f"PublicKey = {key}"]
            # wg(8) reads lines of any length; short ones are easier to read.
            chunks = [ips[start : start + 20] for start in range(0, len(ips), 20)]
            lines += [f"AllowedIPs = {', '.join(chunk)}" for chunk in chunks]
            if key == theirs.keys.public:
                lines.append(f"Endpoint = {theirs.endpoint()}")
        self.write_and_set(ours, "\n".join(lines) + "\n")

    def write_and_set(self, node: Node, text: str) -> None:
        path = LOGS / f"{node.interface}.conf"
        path.touch(0o600)
        path.write_text(text)
        node.wg("setconf", node.interface, str(path), seconds=60)


def addresses(number: int) -> list[str]:
    """Half of them are IPv4 networks, half IPv6; each belongs to one peer only."""
    half = IPS_PER_PEER // 2
    return [f"172.{16 + index % 16}.{number}.{index * 4}/30" for index in range(half)] + [
        f"fd99:{number + 1:x}:{index + 1:x}::/48" for index in range(half)
    ]
