"""`culvert forward`: the flows of many clients."""

import socket
import time

from harness.case import culvert_only, each, long, quick
from harness.lab.forward import (
    FAMILY,
    PATIENCE,
    WITH_RAW_SOCKETS,
    Client,
    EchoServer,
    Forward,
    ForwardLab,
    Mapping,
    build_forward,
)
from suites.interop.forwarding.case import ECHO, ForwardCase

IP_RECVTOS = 13
CLOSED_SECONDS = 5  # how long a port inside that is closed is not tried again


def connected_client(forward: Forward, mapping: Mapping) -> socket.socket:
    """The socket of a client that learns of ICMP errors."""
    family = FAMILY[6 if ":" in mapping.local else 4]
    client = forward.namespace.socket(family, socket.SOCK_DGRAM)
    client.settimeout(PATIENCE)
    client.connect((mapping.local, mapping.local_port))
    return client


def keeps_asking(client: socket.socket) -> bool:
    """Whether there is an answer in the end."""
    for _ in range(200):
        try:
            client.send(b"!")
            return client.recv(1) == b"!"
        except ConnectionRefusedError:
            time.sleep(0.1)
    return False


class ClientTests(ForwardCase):
    @quick
    @culvert_only
    def test_each_client_gets_its_own_answer(self) -> None:
        """Fifty at once, on two mappings; each uses the same local port on both."""
        lab = self.lab_with((7000, ECHO), (7001, ECHO + 1))
        first, second = lab.mapping(7000, 0), lab.mapping(7001, 0)
        with EchoServer(lab.theirs, ECHO), EchoServer(lab.theirs, ECHO + 1):
            clients = [Client(lab.forward, first) for _ in range(50)]
            self.check_echo(clients[0], 10)
            for port in (first.local_port, second.local_port):
                for number, client in enumerate(clients):
                    client.target = ("127.0.0.1", port)
                    client.send(f"{port} {number}".encode())
                for number, client in enumerate(clients):
                    answer, sender = client.receive()
                    self.assertEqual(answer, f"{port} {number}".encode())
                    self.assertEqual(sender, ("127.0.0.1", port))
            for client in clients:
                client.socket.close()
        self.assertEqual(lab.forward.counters()["flow-opened"], 100)

    @quick
    @culvert_only
    def test_answers_come_from_the_address_that_was_asked(self) -> None:
        """A client may use two of the addresses of a socket that listens on all."""
        lab = build_forward(self.lab, self.settings.program, self.settings.peer)
        mapping = Mapping("0.0.0.0", 7000, lab.theirs.inner4, ECHO)
        lab.forward.start([mapping])
        with EchoServer(lab.theirs, ECHO), Client(lab.forward, mapping) as client:
            for address in ("127.0.0.1", "127.0.0.9", "127.0.0.1"):
                client.send(address.encode(), to=address)
                self.assertEqual(client.receive(), (address.encode(), (address, 7000)))
            # From another address, and in reverse order.
            client.send(b"one", to="127.0.0.1")
            client.send(b"nine", to="127.0.0.9")
            got = {client.receive() for _ in range(2)}
        self.assertEqual(got, {(b"one", ("127.0.0.1", 7000)), (b"nine", ("127.0.0.9", 7000))})

    @culvert_only
    def test_only_the_destination_is_heard(self) -> None:
        """An answer from another port or address of the same host reaches no client."""
        lab = self.lab_with((7000, ECHO))
        with EchoServer(lab.theirs, ECHO) as server, EchoServer(lab.theirs, ECHO + 1) as other:
            server.answer = lambda data, asker: other.socket.sendto(data, asker)
            with Client(lab.forward, lab.mapping(7000, 0)) as client:
                client.send(b"?")
                lab.forward.wait_for_counter("forward-wrong-sender")
                self.assertIsNone(client.receive(0.3))

    @culvert_only
    def test_the_traffic_class_goes_along(self) -> None:
        """DSCP and ECN of a datagram arrive inside, and those of the answer at the client."""
        lab = self.lab_with((7000, ECHO))
        server = lab.theirs.namespace.socket(socket.AF_INET, socket.SOCK_DGRAM)
        with server, Client(lab.forward, lab.mapping(7000, 0)) as client:
            server.bind((lab.theirs.inner4, ECHO))
            for end, traffic_class in ((server, 0x28), (client.socket, 0xB8)):
                end.settimeout(10)
                end.setsockopt(socket.IPPROTO_IP, IP_RECVTOS, 1)
                end.setsockopt(socket.IPPROTO_IP, socket.IP_TOS, traffic_class)
            client.send(b"?")
            data, inside, _, asker = server.recvmsg(100, 100)
            server.sendto(data, asker)
            _, outside, _, _ = client.socket.recvmsg(100, 100)
        self.assertEqual((inside[0][2], outside[0][2]), (b"\xb8", b"\x28"))


class FlowTests(ForwardCase):
    @culvert_only
    def test_an_unreachable_port_ends_the_flow(self) -> None:
        """The client's next datagram opens a new flow with a new port inside."""
        lab = self.lab_with((7000, ECHO))
        with Client(lab.forward, lab.mapping(7000, 0)) as client:
            client.send(b"nobody listens")
            counters = lab.forward.wait_for_counter("flow-unreachable")
            self.assertEqual((counters["flow-opened"], counters["flow-unreachable"]), (1, 1))
            time.sleep(CLOSED_SECONDS)
            with EchoServer(lab.theirs, ECHO):
                self.check_echo(client, 10)
            self.assertEqual(lab.forward.counters()["flow-opened"], 2)

    @culvert_only
    @each(family=(4, 6))
    def test_R67_a_closed_port_refuses_the_client(self, family: int) -> None:
        """Without rights: the next datagram, until the port is tried again."""
        lab = self.lab_with((7000, ECHO, family, family))
        with connected_client(lab.forward, lab.mapping(7000, 0, family, family)) as client:
            client.send(b"?")
            lab.forward.wait_for_counter("forward-port-closed")
            begin = time.monotonic()
            client.send(b"??")
            self.assertRaises(ConnectionRefusedError, client.recv, 1)
            with EchoServer(lab.theirs, ECHO, family):
                self.assertTrue(keeps_asking(client), "an answer")
            self.assertLess(time.monotonic() - begin, CLOSED_SECONDS + 3)

    @culvert_only
    @each(family=(4, 6))
    def test_R67_with_raw_sockets_each_client_is_told(self, family: int) -> None:
        """With CAP_NET_RAW: the first datagram is refused, and the port stays open."""
        lab = build_forward(self.lab, self.settings.program, self.settings.peer)
        mapping = lab.mapping(7000, ECHO, family, family)
        lab.forward.rights = WITH_RAW_SOCKETS
        lab.forward.start([mapping])
        with (
            connected_client(lab.forward, mapping) as client,
            connected_client(lab.forward, mapping) as other,
        ):
            for end in (client, other):
                end.send(b"?")
                self.assertRaises(ConnectionRefusedError, end.recv, 1)
            with EchoServer(lab.theirs, ECHO, family):
                client.send(b"!")
                self.assertEqual(client.recv(1), b"!")
        self.assertEqual(lab.forward.counters()["forward-port-closed"], 2)

    @culvert_only
    def test_R67_a_target_that_answers_is_not_closed_to_others(self) -> None:
        """An error, which may be forged, does not refuse clients for ten seconds."""
        lab = self.lab_with((7000, ECHO))
        with connected_client(lab.forward, lab.mapping(7000, 0)) as client:
            with EchoServer(lab.theirs, ECHO):
                self.assertTrue(keeps_asking(client), "an answer")
            client.send(b"?")
            counters = lab.forward.wait_for_counter("flow-unreachable")
            self.assertNotIn("forward-port-closed", counters)
            with EchoServer(lab.theirs, ECHO):
                client.send(b"!")
                self.assertEqual(client.recv(1), b"!")

    @culvert_only
    def test_an_unreachable_host_ends_the_flow(self) -> None:
        """Also over IPv6, where a router behind the tunnel reports it."""
        lab = build_forward(self.lab, self.settings.program, self.settings.peer)
        behind = "fd99::1"
        lab.theirs.namespace.ip(f"route add unreachable {behind}/128")
        lab.theirs.namespace.set_sysctl("net/ipv6/conf/all/forwarding", "1")
        path = lab.forward.state / f"{lab.forward.name}.conf"
        path.write_text(path.read_text().replace("fd07::2/128", f"fd07::2/128, {behind}/128"))
        mapping = Mapping("127.0.0.1", 7000, behind, ECHO)
        lab.forward.start([mapping])
        with Client(lab.forward, mapping) as client:
            client.send(b"?")
            lab.forward.wait_for_counter("flow-unreachable")

    @long
    @culvert_only
    def test_idle_flows_expire(self) -> None:
        """30 s after the last datagram if there was no answer; answered flows stay."""
        lab = self.lab_with((7000, ECHO), (7001, ECHO + 1))
        with EchoServer(lab.theirs, ECHO), EchoServer(lab.theirs, ECHO + 1) as mute:
            mute.answer = lambda data, asker: None
            with (
                Client(lab.forward, lab.mapping(7000, 0)) as answered,
                Client(lab.forward, lab.mapping(7001, 0)) as unanswered,
            ):
                self.check_echo(answered, 10)
                unanswered.send(b"?")
                begin = time.monotonic()
                lab.forward.wait_for_counter("flow-opened", 2)
                counters = lab.forward.wait_for_counter("flow-expired", seconds=45)
                self.assertGreater(time.monotonic() - begin, 29)
                self.assertEqual(counters["flow-expired"], 1)
                self.check_echo(answered, 10)
                unanswered.send(b"?")
                counters = lab.forward.wait_for_counter("flow-opened", 3)
        self.assertEqual(counters["flow-opened"], 3)
        self.assertEqual(len(set(mute.askers)), 2, "another port inside")

    @quick
    @culvert_only
    def test_a_thousand_clients_in_turn(self) -> None:
        """A hundred at a time in 256 flows: each gets its answer."""
        lab = self.lab_with((7000, ECHO))
        answered = 0
        with EchoServer(lab.theirs, ECHO):
            with Client(lab.forward, lab.mapping(7000, 0)) as client:
                self.check_echo(client, 1)
            for start in range(0, 1000, 100):
                answered += self.ask_all(lab, range(start, start + 100))
            counters = lab.forward.counters()
        self.assertEqual(answered, 1000)
        self.assertEqual(counters["flow-opened"], 1001)
        self.assertEqual(counters["flow-evicted"], 1001 - 256)
        self.assertNotIn("flow-refused", counters)

    @culvert_only
    def test_a_thousand_clients_at_once(self) -> None:
        """Datagrams are lost only if their flow is evicted, or refused as none can be evicted."""
        lab = self.lab_with((7000, ECHO))
        with EchoServer(lab.theirs, ECHO):
            with Client(lab.forward, lab.mapping(7000, 0)) as client:
                self.check_echo(client, 1)
            answered = self.ask_all(lab, range(1000))
            counters = lab.forward.counters()
        refused = counters.get("flow-refused", 0)
        dropped = lab.forward.dropped_by_kernel(7000)
        lost = counters.get("flow-evicted", 0) + refused + dropped
        self.assertGreaterEqual(answered, 1000 - lost)
        self.assertGreaterEqual(answered, 255)
        # No datagram was lost otherwise.
        self.assertEqual(counters["forward-sent"] + refused + dropped, 1001)

    def ask_all(self, lab: ForwardLab, numbers: range) -> int:
        """How many of the new clients with these numbers get their own answer."""
        # Ports that the kernel does not assign, so that each client is a new one.
        mapping = lab.mapping(7000, 0)
        clients = [Client(lab.forward, mapping, port=20_000 + number) for number in numbers]
        for number, client in zip(numbers, clients):
            client.send(str(number).encode())
        answered, wait = 0, 3.0
        for number, client in zip(numbers, clients):
            answer = client.receive(wait)
            if answer is None:
                # The other clients have already waited this long.
                wait = 0.001
            else:
                self.assertEqual(answer[0], str(number).encode(), "somebody else's answer")
                answered += 1
            client.socket.close()
        return answered

    @culvert_only
    def test_the_table_can_be_smaller(self) -> None:
        """--max-flows; a flow that waits for an answer is not evicted at once."""
        lab = self.lab_with((7000, ECHO), options=("--max-flows", "2"))
        with EchoServer(lab.theirs, ECHO) as server:
            answer, server.answer = server.answer, lambda data, asker: None
            clients = [Client(lab.forward, lab.mapping(7000, 0)) for _ in range(3)]
            for client in clients:
                client.send(b"?")
            counters = lab.forward.wait_for_counter("flow-refused")
            self.assertEqual((counters["flow-opened"], counters["flow-refused"]), (2, 1))
            server.answer = answer
            for client in clients[:2]:
                self.check_echo(client, 10)
                client.socket.close()
            self.check_echo(clients[2], 10)
            clients[2].socket.close()
