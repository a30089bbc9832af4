"""`culvert forward`: UDP ports that lead through a tunnel, for a user without rights."""

import os
import re
import signal
import socket
import subprocess
import time

from harness import procfs
from harness.case import FAMILIES, InteropCase, culvert_only, each, long, quick
from harness.deadline import wait_until
from harness.forward import (
    NOBODY,
    Client,
    EchoServer,
    Forward,
    ForwardLab,
    Mapping,
    build_forward,
    build_nested,
    counters_in,
)
from harness.node import Node

# IPv4 and UDP headers within the MTU of 1420, and what exceeds it by one.
WHOLE, IN_TWO = 1392, 1393
SIZES = (0, 1, 8, 1372, 1373, WHOLE, IN_TWO, 4000, 8000, 60_000)
LARGEST = 65_507
DNS, ECHO = 53, 7007
IP_RECVTOS = 13


class ForwardCase(InteropCase):
    def lab_with(self, *mappings: tuple, options: tuple = (), **choices) -> ForwardLab:
        """A started forward; each mapping as (local port, target port, listen, inner)."""
        lab = build_forward(self.lab, self.settings.program, self.settings.peer, **choices)
        lab.forward.start([lab.mapping(*mapping) for mapping in mappings], *options)
        return lab

    def check_echo(self, client: Client, size: int) -> None:
        data = os.urandom(size)
        # Fragments and the machine's pauses: a datagram may be lost now and then, in the kernel.
        for _ in range(3):
            answer = client.ask(data)
            if answer is not None:
                break
        self.assertEqual(answer, data, f"{size} bytes")


class NameServerTests(ForwardCase):
    """A real name server, dnsmasq, behind the tunnel, and dig in front of it."""

    def serve(self, node: Node) -> None:
        strings = ",".join(chr(ord("a") + number) * 250 for number in range(16))
        node.namespace.start(
            "dnsmasq", "--keep-in-foreground", "--conf-file=/dev/null", "--no-resolv",
            "--no-hosts", "--bind-interfaces", f"--listen-address={node.inner4},{node.inner6}",
            "--host-record=host.test,192.0.2.77,2001:db8::77", f"--txt-record=big.test,{strings}",
            "--edns-packet-max=4096", "--user=root", "--pid-file=", "--no-daemon",
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)  # fmt: skip
        wait_until(lambda: b":0035 " in self.udp_table(node), "a name server that listens")

    def udp_table(self, node: Node) -> bytes:
        return node.namespace.run("cat", "/proc/net/udp").encode()

    def dig(self, forward: Forward, listen: int, port: int, *words: str) -> str:
        server = "@127.0.0.1" if listen == 4 else "@::1"
        return forward.namespace.run(
            "dig", server, "-p", str(port), "+notcp", "+ignore", "+tries=3", "+time=5", *words)

    @quick
    @culvert_only
    @each(listen=FAMILIES, inner=FAMILIES)
    def test_dig_is_answered(self, listen: int, inner: int) -> None:
        """Over both families, also from one to the other."""
        lab = self.lab_with((5353, DNS, listen, inner))
        self.serve(lab.theirs)
        answer = self.dig(lab.forward, listen, 5353, "+short", "host.test", "A")
        self.assertEqual(answer.strip(), "192.0.2.77")
        answer = self.dig(lab.forward, listen, 5353, "+short", "host.test", "AAAA")
        self.assertEqual(answer.strip(), "2001:db8::77")

    @quick
    @culvert_only
    @each(inner=FAMILIES)
    def test_dig_gets_4_KB(self, inner: int) -> None:
        """An answer that comes in fragments."""
        lab = self.lab_with((5353, DNS, 4, inner))
        self.serve(lab.theirs)
        answer = self.dig(lab.forward, 4, 5353, "+bufsize=4096", "big.test", "TXT")
        self.assertNotIn(" tc", answer)
        size = int(re.search(r"MSG SIZE\s+rcvd: (\d+)", answer).group(1))
        self.assertGreater(size, 4000)
        for number in range(16):
            self.assertIn(chr(ord("a") + number) * 250, answer)
        self.assertEqual(lab.forward.counters()["forward-fragment-reassembled"], 1)

    @culvert_only
    def test_dig_through_two_tunnels(self) -> None:
        """A forward inside another tunnel (--through)."""
        lab = build_nested(self.lab, self.settings.program, self.settings.peer)
        lab.forward.start([lab.mapping(5353, DNS)], around=True)
        self.serve(lab.theirs)
        answer = self.dig(lab.forward, 4, 5353, "+short", "host.test", "A")
        self.assertEqual(answer.strip(), "192.0.2.77")
        answer = self.dig(lab.forward, 4, 5353, "+bufsize=4096", "big.test", "TXT")
        self.assertIn("p" * 250, answer)
        # Only the tunnel around has a way to the peer.
        self.assertEqual(lab.theirs.endpoint_of(lab.forward).split(":")[0], "10.8.0.1")


class DatagramTests(ForwardCase):
    @quick
    @culvert_only
    @each(inner=FAMILIES)
    def test_all_sizes_both_ways(self, inner: int) -> None:
        """Whole, and in fragments from the MTU of 1420 on."""
        lab = self.lab_with((7000, ECHO, 4, inner))
        mapping = lab.mapping(7000, ECHO)
        with EchoServer(lab.theirs, ECHO, inner), Client(lab.forward, mapping) as client:
            for size in SIZES:
                self.check_echo(client, size)
            counters = lab.forward.counters()
        # Of IPv6 the header is larger by 20 bytes, and so two sizes more go in fragments.
        large = 4 if inner == 4 else 6
        self.assertGreaterEqual(counters["forward-datagram-sent-in-fragments"], large)
        self.assertEqual(counters["forward-sent"], counters["forward-answered"])
        self.assertEqual(counters["flow-opened"], 1)

    @culvert_only
    def test_the_largest_datagram(self) -> None:
        lab = self.lab_with((7000, ECHO))
        with EchoServer(lab.theirs, ECHO), Client(lab.forward, lab.mapping(7000, 0)) as client:
            self.check_echo(client, LARGEST)

    @culvert_only
    def test_through_two_tunnels(self) -> None:
        lab = build_nested(self.lab, self.settings.program, self.settings.peer)
        lab.forward.start([lab.mapping(7000, ECHO)], around=True)
        with EchoServer(lab.theirs, ECHO), Client(lab.forward, lab.mapping(7000, 0)) as client:
            for size in (8, 1300, 4000, 60_000):
                self.check_echo(client, size)

    @culvert_only
    def test_beyond_the_slots_of_the_smallest_profile(self) -> None:
        """Answers larger than 2048 bytes are dropped and counted; the rest goes on."""
        lab = self.lab_with((7000, ECHO), options=("--profile", "tiny"))
        with EchoServer(lab.theirs, ECHO), Client(lab.forward, lab.mapping(7000, 0)) as client:
            self.check_echo(client, 2048 - 28)
            self.assertIsNone(client.ask(bytes(2048 - 27), seconds=1))
            self.check_echo(client, 100)
            counters = lab.forward.counters()
        self.assertEqual(counters["forward-sent"], 3)
        self.assertEqual(counters["forward-answered"], 2)

    @culvert_only
    def test_the_mtu_of_the_file_counts(self) -> None:
        lab = build_forward(self.lab, self.settings.program, self.settings.peer)
        forward = lab.forward
        path = forward.state / f"{forward.name}.conf"
        path.write_text(path.read_text().replace("[Peer]", "MTU = 1280\n\n[Peer]"))
        forward.start([lab.mapping(7000, ECHO)])
        with EchoServer(lab.theirs, ECHO), Client(forward, lab.mapping(7000, 0)) as client:
            self.check_echo(client, 1252)
            self.assertNotIn("forward-datagram-sent-in-fragments", forward.counters())
            self.check_echo(client, 1253)
            self.assertIn("forward-datagram-sent-in-fragments", forward.counters())


class ClientTests(ForwardCase):
    @quick
    @culvert_only
    def test_each_client_gets_its_own_answer(self) -> None:
        """Fifty at once, on two mappings, with the same ports of theirs on both."""
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
        """On a socket for all addresses one client may ask at two of them."""
        lab = build_forward(self.lab, self.settings.program, self.settings.peer)
        mapping = Mapping("0.0.0.0", 7000, lab.theirs.inner4, ECHO)
        lab.forward.start([mapping])
        with EchoServer(lab.theirs, ECHO), Client(lab.forward, mapping) as client:
            for address in ("127.0.0.1", "127.0.0.9", "127.0.0.1"):
                client.send(address.encode(), to=address)
                self.assertEqual(client.receive(), (address.encode(), (address, 7000)))
            # From elsewhere, and in the other direction of time.
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
        """DSCP and ECN of a client's datagram arrive inside, and the answer's at the client."""
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
        """The client's next datagram opens another, which has another port inside."""
        lab = self.lab_with((7000, ECHO))
        with Client(lab.forward, lab.mapping(7000, 0)) as client:
            client.send(b"nobody listens")
            counters = lab.forward.wait_for_counter("flow-unreachable")
            self.assertEqual((counters["flow-opened"], counters["flow-unreachable"]), (1, 1))
            with EchoServer(lab.theirs, ECHO):
                self.check_echo(client, 10)
            self.assertEqual(lab.forward.counters()["flow-opened"], 2)

    @culvert_only
    def test_an_unreachable_host_ends_the_flow(self) -> None:
        """Also over IPv6, where a router behind the tunnel says so."""
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
        """30 s after the last datagram where nobody has answered; answered ones live on."""
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
        """Through 256 flows, a hundred at a time: none loses its answer."""
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
        """No more is lost than was evicted, or refused while all flows were within their grace."""
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
        # No datagram disappeared otherwise.
        self.assertEqual(counters["forward-sent"] + refused + dropped, 1001)

    def ask_all(self, lab: ForwardLab, numbers: range) -> int:
        """How many of so many new clients get their own answer."""
        # Ports that the kernel gives nobody: each client is another one.
        mapping = lab.mapping(7000, 0)
        clients = [Client(lab.forward, mapping, port=20_000 + number) for number in numbers]
        for number, client in zip(numbers, clients):
            client.send(str(number).encode())
        answered, wait = 0, 3.0
        for number, client in zip(numbers, clients):
            answer = client.receive(wait)
            if answer is None:
                # The others have had as long.
                wait = 0.001
            else:
                self.assertEqual(answer[0], str(number).encode(), "somebody else's answer")
                answered += 1
            client.socket.close()
        return answered

    @culvert_only
    def test_the_table_can_be_smaller(self) -> None:
        """--max-flows; what waits for an answer is not evicted within its grace."""
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


class ProcessTests(ForwardCase):
    @quick
    @culvert_only
    def test_it_has_no_rights_and_no_interface(self) -> None:
        """Nobody's process, with sockets and timers, and nothing configured in the system."""
        lab = self.lab_with((7000, ECHO))
        self.assertEqual(procfs.status_field(lab.forward.pid, "Uid"), NOBODY)
        with open(f"/proc/{lab.forward.pid}/status") as status:
            text = status.read()
        for field in ("CapEff", "CapPrm", "CapBnd"):
            self.assertRegex(text, rf"{field}:\s+0+\n")
        targets = procfs.descriptors(lab.forward.pid).values()
        self.assertFalse([target for target in targets if "tun" in target], targets)
        self.assertEqual(lab.forward.namespace.interfaces(), {"lo", "outer"})

    @quick
    @culvert_only
    @each(number=(signal.SIGTERM, signal.SIGINT))
    def test_it_ends_on_a_signal_and_prints_counters(self, number: int) -> None:
        lab = self.lab_with((7000, ECHO))
        with EchoServer(lab.theirs, ECHO), Client(lab.forward, lab.mapping(7000, 0)) as client:
            self.check_echo(client, 10)
        self.assertEqual(lab.forward.stop(number), 0)
        counters = counters_in(lab.forward.log)
        self.assertEqual((counters["flow-opened"], counters["forward-answered"]), (1, 1))
        self.assertNotIn("cannot", lab.forward.log)

    @culvert_only
    def test_it_comes_up_again(self) -> None:
        """The peer knows its last handshake; the state directory is its user's."""
        lab = self.lab_with((7000, ECHO))
        with EchoServer(lab.theirs, ECHO):
            for _ in range(2):
                with Client(lab.forward, lab.mapping(7000, 0)) as client:
                    self.check_echo(client, 10)
                self.assertEqual(lab.forward.stop(), 0)
                self.assertTrue((lab.forward.state / "stamps" / lab.forward.name).exists())
                lab.forward.start([lab.mapping(7000, ECHO)])

    @culvert_only
    def test_memory_stays_as_it_is(self) -> None:
        """Resident memory after many flows and large datagrams is what it was."""
        lab = self.lab_with((7000, ECHO))
        with EchoServer(lab.theirs, ECHO), Client(lab.forward, lab.mapping(7000, 0)) as client:
            for _ in range(70):
                self.check_echo(client, 60_000)
            self.ask_many(lab, 300)
            before = procfs.anonymous_memory(lab.forward.pid)
            for _ in range(70):
                self.check_echo(client, 60_000)
            self.ask_many(lab, 300)
            self.assertEqual(procfs.anonymous_memory(lab.forward.pid), before)

    def ask_many(self, lab: ForwardLab, count: int) -> None:
        for _ in range(count):
            with Client(lab.forward, lab.mapping(7000, 0)) as client:
                client.ask(b"?", 1)

    @culvert_only
    def test_several_workers(self) -> None:
        """Large datagrams both ways at once, with more threads than processors."""
        lab = self.lab_with((7000, ECHO), (7001, ECHO, 6), options=("--workers", "4"))
        with EchoServer(lab.theirs, ECHO):
            clients = [
                Client(lab.forward, lab.mapping(port, 0, listen))
                for port, listen in ((7000, 4), (7001, 6)) for _ in range(4)
            ]  # fmt: skip
            self.check_echo(clients[0], 10)
            answered = 0
            for number in range(200):
                data = bytes([number]) * 3000
                for client in clients:
                    client.send(data)
                for client in clients:
                    answer = client.receive(2)
                    answered += answer is not None and answer[0] == data
            for client in clients:
                client.socket.close()
        # Some may be lost where the machine is busy, none may be changed.
        self.assertGreater(answered, 1500)


MISTAKES = {
    "no_config": (("--udp", ":53=10.0.0.1:53"), 2, "--config"),
    "no_udp": (("--config", "/dev/null"), 2, "--udp"),
    "bad_value": (("--config", "/dev/null", "--udp", "53"), 2, "'53'"),
    "name": (("--config", "/dev/null", "--udp", ":53=dns.example:53"), 2, "not a host name"),
    "port_0": (("--config", "/dev/null", "--udp", ":0=10.0.0.1:53"), 2, "port 0"),
    "multicast": (("--config", "/dev/null", "--udp", ":53=224.0.0.1:53"), 2, "multicast"),
    "too_many": (("--config", "/dev/null", *("--udp", ":53=10.0.0.1:53") * 33), 2, "32"),
    "a_name_too": (("wg0", "--config", "/dev/null", "--udp", ":53=10.0.0.1:53"), 2, "wg0"),
    "flows": (("--max-flows", "16385"), 2, "16384"),
    "no_file": (("--config", "/nowhere", "--udp", ":5353=10.0.0.1:53"), 1, "/nowhere"),
    "no_peer": (("--config", "/dev/null", "--udp", ":5353=10.0.0.1:53"), 1, "/dev/null"),
}


class CommandLineTests(ForwardCase):
    def call(self, *words: str, **options) -> subprocess.CompletedProcess:
        return subprocess.run(
            [str(self.settings.program.path), *words], capture_output=True, text=True, timeout=30,
            check=False, **options)  # fmt: skip

    @quick
    @culvert_only
    @each(mistake=tuple(MISTAKES))
    def test_a_mistake_is_told_in_one_line(self, mistake: str) -> None:
        words, status, culprit = MISTAKES[mistake]
        result = self.call("forward", *words, user=NOBODY, group=NOBODY, extra_groups=[])
        self.assertEqual((result.returncode, result.stdout), (status, ""), result.stderr)
        self.assertEqual(result.stderr.count("\n"), 1, result.stderr)
        self.assertTrue(result.stderr.startswith("culvert: "), result.stderr)
        self.assertIn(culprit, result.stderr)

    @quick
    @culvert_only
    def test_what_the_file_lacks_is_told(self) -> None:
        """An address of the destination's family, allowed IPs that cover it, a free port."""
        lab = build_forward(self.lab, self.settings.program, self.settings.peer)
        path = lab.forward.state / f"{lab.forward.name}.conf"
        whole = path.read_text()
        cases = (
            (whole.replace(", fd07::1/64", ""), ":7000=[fd07::2]:7", "IPv6"),
            (whole.replace("10.7.0.1/24, ", ""), ":7000=10.7.0.2:7", "IPv4"),
            (whole, ":7000=10.7.0.3:7", "AllowedIPs"),
            (whole.replace("Address", "#"), ":7000=10.7.0.2:7", "Address"),
            (whole[: whole.index("[Peer]")], ":7000=10.7.0.2:7", "[Peer]"),
            (whole, "192.0.2.1:7000=10.7.0.2:7", "192.0.2.1:7000"),
            (whole, ":53=10.7.0.2:7", "127.0.0.1:53"),
        )
        for text, mapping, culprit in cases:
            path.write_text(text)
            words = lab.forward.command("--config", str(path), "--udp", mapping)
            lab.forward.namespace.set_sysctl("net/ipv4/ip_unprivileged_port_start", "1024")
            result = lab.forward.namespace.attempt(*words, seconds=15)
            self.assertEqual((result.returncode, result.stdout), (1, ""), (mapping, result.stderr))
            self.assertEqual(result.stderr.count("\n"), 1, result.stderr)
            self.assertIn(culprit, result.stderr)

    @culvert_only
    def test_a_port_that_is_taken_is_told(self) -> None:
        lab = self.lab_with((7000, ECHO))
        path = lab.forward.state / f"{lab.forward.name}.conf"
        words = lab.forward.command("--config", str(path), "--udp", ":7000=10.7.0.2:7")
        result = lab.forward.namespace.attempt(*words, seconds=15)
        self.assertEqual(result.returncode, 1)
        self.assertIn("127.0.0.1:7000", result.stderr)
        self.assertEqual(result.stderr.count("\n"), 1, result.stderr)

    @quick
    @culvert_only
    def test_help_teaches(self) -> None:
        result = self.call("forward", "--help")
        self.assertEqual(result.returncode, 0)
        for word in ("--udp LISTEN:PORT=DESTINATION:PORT", "--config", "--through", "SIGUSR1"):
            self.assertIn(word, result.stdout)
        self.assertLessEqual(max(map(len, result.stdout.splitlines())), 100)

    @culvert_only
    def test_the_budget_knows_of_it(self) -> None:
        """More with a forward, and more with more flows."""
        totals = []
        for words in ((), ("--udp", ":53=10.0.0.1:53"),
                      ("--udp", ":53=10.0.0.1:53", "--max-flows", "16384")):  # fmt: skip
            lines = self.call("budget", "--profile", "tiny", *words).stdout.splitlines()
            totals += [int(line.split()[0]) for line in lines if " total of" in line]
        self.assertEqual(len(totals), 3)
        self.assertTrue(totals[0] < totals[1] < totals[2], totals)
