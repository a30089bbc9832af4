"""SIGHUP makes a daemon read its configuration files again."""

import os
import signal
import subprocess
from pathlib import Path

from harness import procfs
from harness.case import InteropCase, culvert_only
from harness.lab.control import write_file
from harness.lab.node import LOGS, KeyPair, Node
from harness.lab.pair import place
from harness.traffic.ping import ping
from harness.waiting import wait_until


class ReloadTests(InteropCase):
    @culvert_only
    def test_R58_a_hangup_applies_what_has_changed(self) -> None:
        """Peers come, change and go; the session of one that stays goes on."""
        ours, theirs = self.build()
        gone, new = KeyPair.generate().public, KeyPair.generate().public
        pid, log = self.start(ours, theirs, self.peer(gone, "10.7.1.0/24", "192.0.2.1:1"))
        wait_until(lambda: ping(ours, theirs.inner4, 1, wait=0.5).received, "an answer")
        before = ours.latest_handshake(theirs)
        port = ours.wg("show", ours.interface, "listen-port")
        self.write(
            ours,
            theirs,
            self.peer(new, "10.7.1.0/24, 10.7.2.0/24", "localhost:5182")
            + "PersistentKeepalive = 25\n",
            mark="FwMark = 0x5\n",
        )
        self.hang_up(pid, log, "configuration read again")
        self.assertEqual(ping(ours, theirs.inner4, 10).received, 10)
        self.assertEqual(ours.latest_handshake(theirs), before)
        self.assertEqual(ours.wg("show", ours.interface, "listen-port"), port)
        self.assertEqual(ours.wg("show", ours.interface, "fwmark").strip(), "0x5")
        self.assertEqual(ours.show("allowed-ips").keys(), {theirs.keys.public, new})
        self.assertEqual(ours.show("allowed-ips")[new], "10.7.1.0/24 10.7.2.0/24")
        self.assertEqual(ours.show("persistent-keepalive")[new], "25")
        # The name is looked up in the event loop, as those of the start are.
        wait_until(lambda: ours.show("endpoints")[new].endswith(":5182"), "the name's address")
        # Once more: without the mark, the name and the peer.
        self.write(ours, theirs, "")
        self.hang_up(pid, log, "configuration read again", 2)
        self.assertEqual(ours.show("allowed-ips").keys(), {theirs.keys.public})
        self.assertEqual(ours.wg("show", ours.interface, "fwmark").strip(), "off")
        self.end(ours, pid)

    @culvert_only
    def test_R58_a_wrong_file_changes_nothing(self) -> None:
        ours, theirs = self.build()
        pid, log = self.start(ours, theirs, "")
        before = ours.wg("showconf", ours.interface)
        path = self.write(ours, theirs, "[Peer]\nPublicKay = x\n")
        self.hang_up(pid, log, "configuration not read again; nothing has changed")
        self.assertIn(f"{path}:11: 'PublicKay': unknown key", log.read_text())
        Path(path).unlink()
        self.hang_up(pid, log, "configuration not read again; nothing has changed", 2)
        self.assertIn("No such file", log.read_text())
        self.assertEqual(ours.wg("showconf", ours.interface), before)
        self.end(ours, pid)

    @culvert_only
    def test_R58_a_file_that_blocks_delays_nothing(self) -> None:
        """A pipe without a writer stands for a server that does not answer."""
        ours, theirs = self.build()
        pid, log = self.start(ours, theirs, "")
        path = Path(self.path(ours))
        path.unlink()
        os.mkfifo(path, 0o600)
        os.kill(pid, signal.SIGHUP)
        wait_until(lambda: "culvert-reload" in self.names(ours), "the process that reads")
        self.assertEqual(ping(ours, theirs.inner4, 20).received, 20)
        self.hang_up(pid, log, "the configuration is still being read")
        self.end(ours, pid)
        wait_until(lambda: not ours.namespace.all_pids(), "the end of all processes")

    @culvert_only
    def test_R58_a_hangup_without_a_file_says_what_to_do(self) -> None:
        node = self.node()
        log = LOGS / f"{node.interface}.hangup"
        pid = self.daemon(node, log)
        self.hang_up(pid, log, "use wg syncconf")
        self.end(node, pid)

    @culvert_only
    def test_R58_a_hangup_is_for_outer_tunnels_too(self) -> None:
        node = self.node()
        log = LOGS / f"{node.interface}.daemon"
        keys = [KeyPair.generate().public for _ in range(2)]
        inner = self.file(node, "inner", self.peer(keys[0], "10.8.0.0/24", "192.0.2.1:1"))
        outer = self.file(node, "outer", self.peer(keys[1], "192.0.2.0/24", "192.0.2.9:9"))
        pid = self.daemon(node, log, "--config", inner, "--through", outer)
        self.file(node, "inner", self.peer(keys[0], "10.8.8.0/24", "192.0.2.1:1"))
        self.file(node, "outer", self.peer(keys[1], "192.0.2.0/24", "192.0.2.7:7"))
        self.hang_up(pid, log, "configuration read again")
        self.assertEqual(node.show("allowed-ips"), {keys[0]: "10.8.8.0/24"})
        endpoints = node.wg("show", f"{node.interface}-1", "endpoints")
        self.assertEqual(endpoints.split(), [keys[1], "192.0.2.7:7"])
        # An error in one file leaves all tunnels as they are.
        self.file(node, "inner", self.peer(keys[0], "10.8.9.0/24", "192.0.2.1:1"))
        self.file(node, "outer", "Nonsense = 1\n")
        self.hang_up(pid, log, "configuration not read again; nothing has changed")
        self.assertEqual(node.show("allowed-ips"), {keys[0]: "10.8.8.0/24"})
        self.end(node, pid)

    # How it is done.

    def build(self) -> tuple[Node, Node]:
        left, right = self.lab.namespace("ours"), self.lab.namespace("theirs")
        self.lab.connect(left, right)
        ours = self.lab.node(left, self.settings.program, "ours")
        theirs = self.lab.node(right, self.settings.program, "theirs")
        place(ours, theirs)
        theirs.start()
        theirs.set("listen-port", str(theirs.port), secrets={"private-key": theirs.keys.private})
        theirs.add_peer(ours)
        theirs.bring_up()
        return ours, theirs

    def path(self, node: Node) -> str:
        return str(LOGS / f"{node.interface}.conf")

    def peer(self, key: str, allowed: str, endpoint: str) -> str:
        return f"[Peer]\nPublicKey = {key}\nAllowedIPs = {allowed}\nEndpoint = {endpoint}\n"

    def file(self, node: Node, name: str, peer: str) -> str:
        """A file of one of two nested tunnels."""
        head = f"[Interface]\nPrivateKey = {node.keys.private}\nAddress = 10.8.0.1/24\n"
        return write_file(f"{node.interface}.{name}.conf", f"{head}{peer}")

    def write(self, ours: Node, theirs: Node, more: str, mark: str = "") -> str:
        first = self.peer(theirs.keys.public, f"{theirs.inner4}/32", theirs.endpoint())
        text = f"""[Interface]
Address = {ours.inner4}/24
PrivateKey = {ours.keys.private}
{mark}
{first}
{more}"""
        return write_file(f"{ours.interface}.conf", text)

    def start(self, ours: Node, theirs: Node, more: str) -> tuple[int, Path]:
        path = self.write(ours, theirs, more)
        log = LOGS / f"{ours.interface}.daemon"
        return self.daemon(ours, log, "--config", path), log

    def daemon(self, node: Node, log: Path, *options: str) -> int:
        program, *rest = self.settings.program.command(node.interface, foreground=False)
        with log.open("wb") as file, node.namespace.entered():
            environment = dict(os.environ, LOG_LEVEL="error")
            command = [program, *options, *rest]
            subprocess.run(command, stdout=file, stderr=file, env=environment, check=True)
        (pid,) = node.namespace.pids()
        return pid

    def hang_up(self, pid: int, log: Path, text: str, count: int = 1) -> None:
        os.kill(pid, signal.SIGHUP)
        wait_until(lambda: log.read_text().count(text) >= count, f"'{text}' in the log")

    def names(self, node: Node) -> set[str]:
        return {procfs.name(pid) for pid in node.namespace.all_pids()}

    def end(self, node: Node, pid: int) -> None:
        os.kill(pid, signal.SIGTERM)
        wait_until(lambda: not procfs.is_running(pid), "the daemon's end", 2)
        self.assertEqual(node.leftovers(), [])
