"""`culvert forward`: the process, its rights and its command line."""

import signal
import subprocess

from harness import procfs
from harness.case import culvert_only, each, quick
from harness.lab.forward import (
    NOBODY,
    Client,
    EchoServer,
    ForwardLab,
    build_forward,
    counters_in,
)
from suites.interop.forwarding.case import ECHO, ForwardCase


class ProcessTests(ForwardCase):
    @quick
    @culvert_only
    def test_it_has_no_rights_and_no_interface(self) -> None:
        """It runs as nobody, and does not change the system's configuration."""
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
        """The peer remembers its last handshake; the state directory belongs to its user."""
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
        """Resident memory does not grow with many flows and large datagrams."""
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
        # A busy machine may lose some datagrams, but none may be changed.
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
        """No address of the destination's family, no allowed IP that covers it, no free port."""
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
        """Larger with a forward, and larger with more flows."""
        totals = []
        for words in ((), ("--udp", ":53=10.0.0.1:53"),
                      ("--udp", ":53=10.0.0.1:53", "--max-flows", "16384")):  # fmt: skip
            lines = self.call("budget", "--profile", "tiny", *words).stdout.splitlines()
            totals += [int(line.split()[0]) for line in lines if " total of" in line]
        self.assertEqual(len(totals), 3)
        self.assertTrue(totals[0] < totals[1] < totals[2], totals)
