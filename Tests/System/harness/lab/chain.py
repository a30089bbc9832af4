"""A client, a chain of servers, and the client's tunnels through them.

    client -- entry -- [more hops] -- exit

Each line is a leg: a pair of interfaces. The client is connected only to the first leg. The tunnel
to the entry runs on that leg, the tunnel to the next server runs inside it, and so on. The servers
forward between their tunnel and the next leg.

Lists are in the order of the path: the entry first, the exit last.

    leg n      198.51.(101+n).1 and .2, 2001:db8:(101+n)::1 and ::2, the client's side first
    tunnel n   10.(71+n).0.1 and .2, fd(71+n)::1 and ::2, the client first
"""

import dataclasses

from harness.lab.control import EVERYTHING, wg_file
from harness.lab.faults import Counters
from harness.lab.lab import Lab
from harness.lab.namespace import Namespace, join
from harness.lab.node import NestedNode, Node, preshared_key
from harness.lab.pair import QUEUED
from harness.settings import Program
from harness.traffic.bad_link import BadLink
from harness.traffic.offloads import start_on_plain_tun
from harness.traffic.ping import ping
from harness.waiting import wait_until

IPV6_MINIMUM, LARGEST_TUNNEL = 1280, 1420
OVERHEAD = {4: 60, 6: 80}  # IP, UDP, data header, tag
FIRST_PORT = 51820
# Names of counters that SIGUSR1 prints:
REASSEMBLED, WRONG_CHECKSUM = "fragment-reassembled", "datagram-bad-checksum"


@dataclasses.dataclass(frozen=True)
class Shape:
    """The shape of a chain: for each hop the family of its endpoint and its leg's MTU."""

    families: tuple[int, ...] = (4, 4)
    mtus: tuple[int, ...] = ()
    # Numbers of the legs that have a BadLink.
    bad: tuple[int, ...] = ()
    # The exit sends packets that do not fit into the outer tunnels.
    large: bool = False
    # The innermost tunnel has IPv6 even if its packets are then too large for the others.
    ipv6: bool = False

    def mtu_of(self, leg: int) -> int:
        return self.mtus[leg] if self.mtus else 1500

    @property
    def has_fragments(self) -> bool:
        return self.large or min(self.mtus, default=1500) < 1500

    @property
    def tunnel_mtus(self) -> list[int]:
        """The largest packets of each tunnel that need no fragments in the next outer tunnel.

        They are multiples of 16, because the server, whose own MTU is larger, pads to 16 bytes.
        """
        found = [min(LARGEST_TUNNEL, self.mtu_of(0) - OVERHEAD[self.families[0]])]
        for family in self.families[1:]:
            found.append((found[-1] - OVERHEAD[family]) // 16 * 16)
        return [*found[:-1], max(found[-1], IPV6_MINIMUM if self.ipv6 else 0)]


class Chain:
    """The namespaces and started servers; `start_client` starts the client."""

    def __init__(self, lab: Lab, client: Program, server: Program, shape: Shape):
        self.lab, self.shape = lab, shape
        self.home = lab.namespace("client")
        self.program = client
        self.servers: list[Node] = []
        self.ends: list[Node] = []
        self.preshared = [preshared_key() for _ in shape.families]
        self.bad_links: dict[int, BadLink] = {}
        for number in range(len(shape.families)):
            role = "entry" if number == 0 else f"hop{number + 1}"
            is_last = number == len(shape.families) - 1
            namespace = lab.namespace("exit" if is_last else role)
            self.servers.append(lab.node(namespace, server, "exit" if is_last else role))
        for number, server in enumerate(self.servers):
            self.join_leg(number)
            server.port = FIRST_PORT + number
            server.inner4, server.inner6 = self.inner_addresses(number, 2)
        self.make_ends()
        for number in range(len(self.servers)):
            self.start_server(number)

    @property
    def client(self) -> Node:
        """The client's end of the innermost tunnel."""
        return self.ends[-1]

    @property
    def entry(self) -> Node:
        return self.servers[0]

    @property
    def exit(self) -> Node:
        return self.servers[-1]

    def inner_addresses(self, number: int, side: int) -> tuple[str, str]:
        """Addresses of one end; Linux has no IPv6 on an interface whose MTU is too small."""
        has_ipv6 = self.shape.tunnel_mtus[number] >= IPV6_MINIMUM
        return f"10.{71 + number}.0.{side}", f"fd{71 + number}::{side}" if has_ipv6 else ""

    # The servers and their links

    def join_leg(self, number: int) -> None:
        """Addresses on both sides of a leg, and the route back into the tunnel."""
        server, mtu = self.servers[number], self.shape.mtu_of(number)
        before = self.home if number == 0 else self.servers[number - 1].namespace
        names = "onward", "outer"
        if number in self.shape.bad:
            middle = self.lab.namespace("bad")
            self.bad_links[number] = BadLink(middle, before, server.namespace, names, mtu)
        else:
            join(before, server.namespace, *names, mtu)
        server.outer4, server.outer6 = f"198.51.{101 + number}.2", f"2001:db8:{101 + number}::2"
        for side, namespace, name in ((1, before, names[0]), (2, server.namespace, names[1])):
            namespace.ip(f"addr add 198.51.{101 + number}.{side}/24 dev {name}")
            if mtu >= IPV6_MINIMUM:
                namespace.ip(f"addr add 2001:db8:{101 + number}::{side}/64 dev {name} nodad")
        if number > 0:
            let_through(before)
            self.route_back(number)

    def route_back(self, number: int) -> None:
        """Route the client's address in the previous tunnel through the previous server."""
        namespace, leg = self.servers[number].namespace, 101 + number
        namespace.ip(f"route replace 10.{70 + number}.0.0/24 via 198.51.{leg}.1")
        if self.shape.mtu_of(number) >= IPV6_MINIMUM:
            namespace.ip(f"route replace fd{70 + number}::/64 via 2001:db8:{leg}::1")

    def start_server(self, number: int) -> None:
        """Start a server, or restart it, with its only peer, which has to initiate."""
        server = self.servers[number]
        if self.shape.has_fragments and not server.program.is_culvert:
            start_on_plain_tun(server)
        else:
            server.start()
        server.set("listen-port", str(server.port), secrets={"private-key": server.keys.private})
        server.add_peer(self.ends[number], preshared=self.preshared[number])
        server.bring_up()
        lengthen_queue(server)

    def move_server(self, number: int, side: int) -> None:
        """Replace its address on its leg."""
        server, leg = self.servers[number], 101 + number
        old4, old6 = server.outer4, server.outer6
        server.outer4, server.outer6 = f"198.51.{leg}.{side}", f"2001:db8:{leg}::{side}"
        server.namespace.ip(
            f"addr del {old4}/24 dev outer", f"addr add {server.outer4}/24 dev outer"
        )
        if self.shape.mtu_of(number) >= IPV6_MINIMUM:
            server.namespace.ip(
                f"addr add {server.outer6}/64 dev outer nodad", f"addr del {old6}/64 dev outer"
            )
        if number > 0:
            self.route_back(number)

    def kill_server(self, number: int) -> None:
        """End it like a crash, without a message or cleanup."""
        kill(self.servers[number])

    # The client

    def make_ends(self) -> None:
        """The client's nodes, not started; only the innermost has a process."""
        hops = len(self.servers)
        if self.program.is_culvert:
            inner = NestedNode(self.home, self.program, "client")
            self.lab.nodes.append(inner)
            outward = [inner.add_hop() for _ in range(hops - 1)]
        else:
            inner, *outward = (
                self.lab.node(self.home, self.program, "client") for _ in range(hops)
            )
        self.ends = [*reversed(outward), inner]
        for number, end in enumerate(self.ends):
            end.inner4, end.inner6 = self.inner_addresses(number, 1)
            end.outer4, end.outer6 = "198.51.101.1", "2001:db8:101::1"
            if number > 0:
                end.outer4, end.outer6 = self.ends[number - 1].inner4, self.ends[number - 1].inner6

    def endpoint(self, number: int) -> str:
        return self.servers[number].endpoint(self.shape.families[number])

    def start_client(self, options: tuple[str, ...] = (), **lines: tuple[str, ...]) -> None:
        """Start the client with a file for each hop.

        `lines` are additional lines for the sections of the innermost tunnel, see wg_file.
        """
        if not self.program.is_culvert:
            self.start_stack()
            return
        paths = [
            wg_file(end, server, self.endpoint(number), self.preshared[number],
                    **(lines if end is self.client else {}))
            for number, (end, server) in enumerate(zip(self.ends, self.servers))
        ]  # fmt: skip
        self.client.start(options=(*options, *self.words(paths)))
        lengthen_queue(self.client)

    def words(self, paths: list[str]) -> list[str]:
        """The options for these files, which are in the order from entry to exit."""
        *outward, inner = paths
        found = ["--config", inner]
        for path in reversed(outward):
            found += ["--through", path]
        return found

    def kill_client(self) -> None:
        for end in self.ends:
            if end.process:  # one process for all hops, or one for each
                kill(end)

    def move_client(self, side: int) -> None:
        """Replace the address on the first leg."""
        end = self.ends[0]
        old4, old6 = end.outer4, end.outer6
        end.outer4, end.outer6 = f"198.51.101.{side}", f"2001:db8:101::{side}"
        self.home.ip(f"addr del {old4}/24 dev onward", f"addr add {end.outer4}/24 dev onward")
        self.home.ip(f"addr add {end.outer6}/64 dev onward nodad", f"addr del {old6}/64 dev onward")

    def start_stack(self) -> None:
        """A process for each hop; the kernel routes the datagrams of one into the next.

        Then nothing is nested: this shows that the chain itself works, with any program.
        """
        for number, end in enumerate(self.ends):
            start_on_plain_tun(end)
            end.set_private_key(end.keys.private)
            end.bring_up(self.shape.tunnel_mtus[number])
            lengthen_queue(end)
            allowed = EVERYTHING.replace(" ", "")
            end.add_peer(
                self.servers[number], self.endpoint(number), allowed, self.preshared[number]
            )
            if number > 0:
                before, leg = self.ends[number - 1], 101 + number
                end.namespace.ip(f"route add 198.51.{leg}.0/24 dev {before.interface}")
                if before.inner6:
                    end.namespace.ip(f"route add 2001:db8:{leg}::/64 dev {before.interface}")

    @property
    def reassembled(self) -> int:
        """Datagrams that the client has reassembled, of all hops."""
        return self.counted(REASSEMBLED, "Ip.ReasmOKs", "Ip6ReasmOKs")

    @property
    def wrong_checksums(self) -> int:
        """Datagrams that the client dropped for a wrong UDP checksum, of all hops."""
        return self.counted(WRONG_CHECKSUM, "Udp.InCsumErrors", "Udp6InCsumErrors")

    def counted(self, ours: str, *kernels: str) -> int:
        """A counter of the client, or of the kernel if that connects the hops."""
        if isinstance(self.client, NestedNode):
            counters = self.client.counters().items()
            return sum(count for (_, name), count in counters if name == ours)
        counters = Counters.of(self.home)
        return sum(counters[name] for name in kernels)

    def handshake(self, seconds: float = 15) -> None:
        """Ping the exit until it answers through all tunnels.

        In both families, because the kernel may need a while until an IPv6 address is usable.
        """
        for address in filter(None, (self.exit.inner4, self.exit.inner6)):
            wait_until(
                lambda: ping(self.client, address, count=1, wait=1).received == 1,
                f"an answer of {address}",
                seconds,
            )


def lengthen_queue(node: Node) -> None:
    """Tests count packets, so a pause of the machine must not lose any."""
    node.namespace.ip(f"link set {node.interface} txqueuelen {QUEUED}")


def kill(node: Node) -> None:
    node.process.kill()
    node.process.wait()


def let_through(namespace: Namespace) -> None:
    """Make it a router that forwards packets of any source."""
    namespace.set_sysctl("net/ipv4/ip_forward", "1")
    namespace.set_sysctl("net/ipv6/conf/all/forwarding", "1")
    for scope in ("all", "default"):
        namespace.set_sysctl(f"net/ipv4/conf/{scope}/rp_filter", "0")
