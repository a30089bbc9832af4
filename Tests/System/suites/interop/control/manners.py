"""How the program behaves to the system that it runs on: ports, addresses, signals, descriptors."""

import contextlib
import fcntl
import os
import signal
import socket
import subprocess
import time

from harness import procfs
from harness.case import InteropCase, culvert_only, each, quick
from harness.lab.control import UAPIConnection, write_file
from harness.lab.node import LOGS, KeyPair, Node, hexadecimal
from harness.waiting import wait_until

PORT = 51001
COMMANDS = (("genkey",), ("genpsk",), ("pubkey",), ("help",), ("forward", "--help"), ("version",),
            ("budget",), ("selftest",))  # fmt: skip


class ConfiguredCase(InteropCase):
    def start(
        self, node: Node, *interface: str, foreground: bool = True, options: tuple[str, ...] = ()
    ) -> subprocess.CompletedProcess:
        """Start a node from a file with these lines, where it is expected to end by itself."""
        command = self.command(node, *interface, foreground=foreground, options=options)
        return node.namespace.attempt(*command, seconds=15)

    def command(
        self, node: Node, *interface: str, foreground: bool = True, options: tuple[str, ...] = ()
    ) -> list[str]:
        program, *rest = self.settings.program.command(node.interface, foreground=foreground)
        return [program, "--config", self.file(node, *interface), *options, *rest]

    def file(self, node: Node, *interface: str) -> str:
        lines = ["[Interface]", f"PrivateKey = {node.keys.private}", *interface, ""]
        return write_file(f"{node.interface}.conf", "\n".join(lines))

    @contextlib.contextmanager
    def taken(self, node: Node, port: int = PORT):
        """Another program's socket has the port."""
        with node.namespace.socket(socket.AF_INET, socket.SOCK_DGRAM) as blocker:
            blocker.bind(("0.0.0.0", port))
            yield

    def daemon(self, node: Node, *command: str, **options) -> int:
        """Start in the background; the process's number."""
        result = node.namespace.attempt(*command, **options)
        self.assertEqual(result.returncode, 0, result.stderr)
        (pid,) = node.namespace.pids()
        return pid

    def end(self, node: Node, pid: int) -> None:
        os.kill(pid, signal.SIGTERM)
        wait_until(lambda: not procfs.is_running(pid), "the daemon's end")
        self.assertEqual(node.leftovers(), [])


class PortTests(ConfiguredCase):
    @quick
    @culvert_only
    @each(foreground=(False, True), address=(False, True))
    def test_R43_a_taken_port_of_a_file_fails_the_start(
        self, foreground: bool, address: bool
    ) -> None:
        """Status 1; one line names the file, the port and what to do."""
        node = self.node()
        lines = [f"ListenPort = {PORT}", *["Address = 10.7.0.1/24"] * address]
        with self.taken(node):
            result = self.start(node, *lines, foreground=foreground)
        self.assertEqual(result.returncode, 1, result.stderr)
        self.assertEqual(result.stderr.count("\n"), 1, result.stderr)
        for word in (f"{node.interface}.conf", f"port {PORT}", "ListenPort"):
            self.assertIn(word, result.stderr)
        self.assertEqual(node.leftovers(), [])

    @culvert_only
    @each(kind=("through", "forward"))
    def test_R43_a_taken_port_without_an_interface(self, kind: str) -> None:
        """The same for the outermost of nested tunnels, and for forwarded ports."""
        node = self.node()
        peer = ("[Peer]", f"PublicKey = {KeyPair.generate().public}", "AllowedIPs = 10.0.0.0/8")
        path = self.file(node, f"ListenPort = {PORT}", "Address = 10.7.0.1/24", *peer)
        program = str(self.settings.program.path)
        command = [program, "forward", "--config", path, "--udp", ":5353=10.0.0.1:53"]
        if kind == "through":
            inner = write_file("inner.conf", f"[Interface]\nPrivateKey = {node.keys.private}\n")
            command = [program, "-f", "--config", inner, "--through", path, node.interface]
        with self.taken(node):
            result = node.namespace.attempt(*command, seconds=15)
        self.assertEqual(result.returncode, 1, result.stderr)
        for word in (path, f"port {PORT}", "ListenPort"):
            self.assertIn(word, result.stderr)
        self.assertEqual(node.leftovers(), [])

    @culvert_only
    def test_R43_a_free_port_of_a_file_is_bound(self) -> None:
        """With an address at once, otherwise as soon as the interface is up."""
        for address in (True, False):
            node = self.node()
            lines = [f"ListenPort = {PORT}", *["Address = 10.7.0.1/24"] * address]
            node.start(options=("--config", self.file(node, *lines)))
            if not address:
                self.assertEqual(procfs.udp_sockets(node.pid), set())
                node.namespace.ip(f"link set {node.interface} up")
            wait_until(lambda node=node: len(procfs.udp_sockets(node.pid)) == 2, "the sockets")
            self.assertEqual(node.wg("show", node.interface, "listen-port").strip(), str(PORT))

    @culvert_only
    def test_R43_a_port_taken_at_run_time_is_tried_again(self) -> None:
        """It is logged once, not reported to wg(8), and bound when it is free; then it is quiet."""
        node = self.node()
        node.start(level="error")
        node.set("listen-port", str(PORT))
        with self.taken(node):
            node.namespace.ip(f"link set {node.interface} up")
            wait_until(lambda: f"cannot listen on port {PORT}" in node.log, "a line in the log")
            self.assertEqual(node.wg("show", node.interface, "listen-port").strip(), "0")
            time.sleep(3.5)  # three attempts
            self.assertEqual(node.log.count("cannot listen"), 1)
        wait_until(lambda: len(procfs.udp_sockets(node.pid)) == 2, "the sockets", 10)
        self.assertEqual(node.wg("show", node.interface, "listen-port").strip(), str(PORT))
        wait_until(lambda: f"listening on port {PORT}" in node.log, "a line in the log")

        def is_quiet() -> bool:
            before = procfs.wake_ups(node.pid)
            time.sleep(3)
            return procfs.wake_ups(node.pid) == before

        # News of the addresses that the kernel gives the interface may come late.
        wait_until(is_quiet, "three seconds without a wake-up", 15)

    @culvert_only
    def test_R43_a_refused_change_is_logged(self) -> None:
        """At the default level; the old port stays bound and shown."""
        node = self.node()
        node.start(level="error")
        node.set("listen-port", str(PORT + 1))
        node.bring_up()
        with self.taken(node):
            result = node.namespace.attempt(
                "wg", "set", node.interface, "listen-port", str(PORT)
            )
        self.assertNotEqual(result.returncode, 0)
        wait_until(lambda: f"cannot listen on port {PORT}" in node.log, "a line in the log")
        self.assertEqual(node.wg("show", node.interface, "listen-port").strip(), str(PORT + 1))


class AddressTests(ConfiguredCase):
    BOTH = "Address = 10.7.0.1/24, fd07::1/64, fd07::2/64"

    @culvert_only
    def test_R57_without_ipv6_its_addresses_are_skipped(self) -> None:
        """One line for all of them, and the interface works with IPv4."""
        node = self.node()
        node.namespace.disable_ipv6()
        result = self.start(node, self.BOTH, foreground=False)
        self.assertEqual(result.returncode, 0, result.stderr)
        self.assertEqual(result.stderr.count("IPv6"), 2, result.stderr)
        self.assertEqual(result.stderr.count("\n"), 1, result.stderr)
        shown = node.namespace.run("ip", "-o", "address", "show", "dev", node.interface)
        self.assertIn("10.7.0.1/24", shown)
        (pid,) = node.namespace.pids()
        self.end(node, pid)

    @culvert_only
    @each(where=("file", "option"))
    def test_R57_a_small_mtu_with_ipv6_is_refused(self, where: str) -> None:
        """Before an address is set; the line names the address and the least MTU."""
        node = self.node()
        lines = [self.BOTH, *["MTU = 1279"] * (where == "file")]
        options = ("--mtu", "1279") if where == "option" else ()
        with node.namespace.entered():
            monitor = subprocess.Popen(
                ["ip", "monitor", "address"], stdout=subprocess.PIPE, text=True
            )
        time.sleep(0.3)
        result = self.start(node, *lines, options=options)
        time.sleep(0.3)
        monitor.terminate()
        self.assertEqual(result.returncode, 1, result.stderr)
        for word in ("1279", "fd07::1/64", "1280"):
            self.assertIn(word, result.stderr)
        self.assertNotIn("10.7.0.1", monitor.communicate()[0])

    @culvert_only
    def test_R57_a_small_mtu_without_ipv6_is_fine(self) -> None:
        node = self.node()
        result = self.start(node, "Address = 10.7.0.1/24", "MTU = 1000", foreground=False)
        self.assertEqual(result.returncode, 0, result.stderr)
        (pid,) = node.namespace.pids()
        self.end(node, pid)

    @culvert_only
    def test_R57_a_refused_address_is_named(self) -> None:
        """With the kernel's reason; root is not told to become root."""
        node = self.node()
        result = self.start(node, "Address = 10.7.0.1/24, ff02::7/64")
        self.assertEqual(result.returncode, 1, result.stderr)
        self.assertIn("ff02::7/64", result.stderr)
        self.assertNotIn("root", result.stderr)


class SignalTests(ConfiguredCase):
    @culvert_only
    @each(number=(signal.SIGHUP, signal.SIGINT))
    def test_R58_a_signal_ignored_at_start_stays_ignored(self, number: int) -> None:
        """As under nohup(1), or after "&" in a script."""
        node = self.node()
        name = signal.Signals(number).name
        env = f"--ignore-signal={name.removeprefix('SIG')}"
        command = self.settings.program.command(node.interface)
        node.process = node.namespace.start("env", env, *command, stdout=-3, stderr=-3)
        wait_until(lambda: node.is_ready, "readiness")
        with UAPIConnection(node.socket_path) as uapi:
            uapi.get()
            os.kill(node.pid, number)
            time.sleep(0.3)
            uapi.get()
        self.assertTrue(node.is_running)
        self.assertEqual(node.stop(), 0)

    @quick
    @culvert_only
    def test_R58_a_hangup_ends_a_foreground_process_otherwise(self) -> None:
        node = self.node()
        node.start()
        self.assertEqual(node.stop(signal.SIGHUP), 0)


class ConfigurationTests(InteropCase):
    @culvert_only
    def test_R60_showconf_feeds_setconf_with_zones(self) -> None:
        """A zone is shown where the address needs one, a mapped address as it was given.

        Every endpoint is taken back.
        """
        node = self.node()
        node.start()
        endpoints = ("[::1%lo]:5", "[::1%1]:6", "[fe80::1%lo]:7", "[fe80::2%1]:8",
                     "[::ffff:192.0.2.1]:9", "192.0.2.2:10", "[2001:db8::1]:11")  # fmt: skip
        lines = [f"private_key={hexadecimal(node.keys.private)}"]
        for endpoint in endpoints:
            key = hexadecimal(KeyPair.generate().public)
            lines += [f"public_key={key}", f"endpoint={endpoint}"]
        with UAPIConnection(node.socket_path) as uapi:
            self.assertEqual(uapi.set(*lines), 0)
            shown = [value for key, value in uapi.get() if key == "endpoint"]
        self.assertEqual(
            [value for value in shown if "%" in value], ["[fe80::1%1]:7", "[fe80::2%1]:8"]
        )
        self.assertIn("[::1]:5", shown)
        self.assertIn("[::ffff:192.0.2.1]:9", shown)
        text = node.wg("showconf", node.interface)
        self.assertIn("[fe80::1%lo]:7", text)
        path = write_file(f"{node.interface}.shown", text)
        node.wg("setconf", node.interface, path)
        again = node.wg("showconf", node.interface)
        self.assertEqual(sorted(again.splitlines()), sorted(text.splitlines()))


class DaemonTests(ConfiguredCase):
    @culvert_only
    def test_R61_a_daemon_keeps_no_descriptor_and_no_directory(self) -> None:
        """A caller's lock is free once the command has returned, and so is its directory."""
        node = self.node()
        command = self.settings.program.command(node.interface, foreground=False)
        folder = LOGS / f"{node.interface}.folder"
        folder.mkdir()
        lock = folder / "lock"
        with lock.open("w") as held:
            fcntl.flock(held, fcntl.LOCK_EX)
            number = held.fileno()
            high = os.dup2(number, 777)
            pid = self.daemon(node, *command, cwd=folder, pass_fds=(number, high))
            os.close(high)
        with lock.open("w") as again:
            fcntl.flock(again, fcntl.LOCK_EX | fcntl.LOCK_NB)
        self.assertNotIn(str(lock), procfs.descriptors(pid).values())
        self.assertEqual(os.readlink(f"/proc/{pid}/cwd"), "/")
        self.end(node, pid)

    @culvert_only
    def test_R61_relative_paths_and_descriptors_still_work(self) -> None:
        """A file given as /dev/fd/N is read, then closed; a state directory may be relative."""
        node = self.node()
        folder = LOGS / f"{node.interface}.folder"
        folder.mkdir()
        path = self.file(node, f"ListenPort = {PORT}", "Address = 10.7.0.1/24")
        with open(path, "rb") as file:
            number = file.fileno()
            command = self.settings.program.command(node.interface, foreground=False)
            options = ("--config", f"/dev/fd/{number}", "--state-dir", "state")
            pid = self.daemon(
                node, command[0], *options, *command[1:], cwd=folder, pass_fds=(number,)
            )
        wait_until(
            lambda: node.wg("show", node.interface, "listen-port").strip() == str(PORT), "the port"
        )
        self.assertNotIn(path, procfs.descriptors(pid).values())
        # A handshake with nobody: its timestamp is stored.
        other = KeyPair.generate().public
        node.set("peer", other, "endpoint", "10.7.0.9:9", "persistent-keepalive", "1")
        wait_until(lambda: any((folder / "state").glob("*")), "a state file in the directory")
        self.end(node, pid)


class OutputTests(InteropCase):
    @quick
    @culvert_only
    def test_R64_output_that_cannot_be_written_is_an_error(self) -> None:
        """To a full disk, or to a closed descriptor: status 1 and one line."""
        for arguments in COMMANDS:
            for target in ("> /dev/full", ">&-"):
                result = self.call(arguments, target)
                self.assertEqual(result.returncode, 1, (arguments, target))
                self.assertEqual(result.stderr.count("\n"), 1, (arguments, result.stderr))
                self.assertIn("cannot write the output", result.stderr)
            self.assertEqual(self.call(arguments, "> /dev/null").returncode, 0, arguments)

    def call(self, arguments: tuple[str, ...], target: str) -> subprocess.CompletedProcess:
        program = self.settings.program.path
        text = f'"$@" {target}'
        key = KeyPair.generate().private
        return subprocess.run(
            ["sh", "-c", text, "sh", program, *arguments], input=key, capture_output=True,
            text=True, timeout=60, check=False)  # fmt: skip
