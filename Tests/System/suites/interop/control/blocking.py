"""Nothing that blocks stops the tunnel: a file system that hangs, a log that nobody reads.

tunnels/names.py has the same for name servers that do not answer (R44).
"""

import contextlib
import errno
import io
import os
import pathlib
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from fcntl import F_SETPIPE_SZ, fcntl

from harness import procfs
from harness.calls import CLOSE_RANGE, refuse_call
from harness.case import InteropCase, culvert_only, each
from harness.lab.control import UAPIConnection
from harness.lab.node import LOGS, Node, hexadecimal
from harness.lab.pair import Pair, introduce, place
from harness.traffic.ping import ping
from harness.traffic.streams import iperf
from harness.waiting import wait_until

ANSWER = 0.1  # seconds within which a configuration request must be answered
END = 1.0  # seconds from SIGTERM to the end
START = 3.5  # seconds within which it must start, although the state directory hangs
PIPE = 4096
HELPER_MEMORY = 300 << 10  # bytes of private memory
HELPER_MAPPED = 1 << 20  # bytes; the arena is larger
FLOOD = 0.05  # seconds; wireguard-go refuses a second initiation within 0.02
ATTEMPTS = 3  # another program may take the machine's processors away at any moment


class BlockingCase(InteropCase):
    def check_tunnel(self, pair: Pair) -> None:
        """Configuration is answered, a new handshake succeeds, and no packet is lost."""
        with UAPIConnection(pair.ours.socket_path) as connection:
            self.check_quick(connection.get)
            self.check_quick(lambda: self.replace_peer(connection, pair))
        time.sleep(FLOOD)
        pair.handshake()
        result = ping(pair.ours, pair.theirs.inner4, count=20, interval=0.05)
        self.assertEqual(result.received, 20, result)
        self.assertIn("latest handshake", pair.ours.wg("show", pair.ours.interface))

    def check_quick(self, request: Callable[[], object]) -> None:
        times = []
        for _ in range(ATTEMPTS):
            start = time.monotonic()
            request()
            times.append(time.monotonic() - start)
        print(f"{self._testMethodName}: answered after {1000 * min(times):.1f} ms")
        self.assertLess(min(times), ANSWER, times)

    def replace_peer(self, connection: UAPIConnection, pair: Pair) -> None:
        """Remove the peer with its session, and add it again."""
        key = f"public_key={hexadecimal(pair.theirs.keys.public)}"
        self.assertEqual(connection.set(key, "remove=true"), 0)
        lines = [f"endpoint={pair.theirs.endpoint()}"]
        lines += [f"allowed_ip={prefix}" for prefix in pair.theirs.allowed_ips.split(",")]
        self.assertEqual(connection.set(key, *lines), 0)

    def check_end(self, node: Node) -> None:
        """SIGTERM ends it in time, and nothing is left behind."""
        start = time.monotonic()
        self.assertEqual(node.stop(signal.SIGTERM, 5), 0)
        seconds = time.monotonic() - start
        print(f"{self._testMethodName}: ended after {seconds:.2f} s")
        self.assertLess(seconds, END)
        self.assertEqual(node.leftovers(), [])

    def build(self) -> Pair:
        """A pair that is not started."""
        left, right = self.lab.namespace("ours"), self.lab.namespace("theirs")
        self.lab.connect(left, right, 1500)
        ours = self.lab.node(left, self.settings.program, "ours")
        theirs = self.lab.node(right, self.settings.peer, "theirs")
        place(ours, theirs)
        return Pair(ours, theirs, ours, theirs)

    def start(self, pair: Pair, *options: str, log: io.IOBase | None = None) -> None:
        """Start and configure a pair; our end has these options and, if given, this log."""
        ours, theirs = pair.nodes
        if log is None:
            ours.start(options=options)
        else:
            program = ours.program
            environment = dict(os.environ, LOG_LEVEL="verbose", **program.environment)
            command = program.command(ours.interface)
            ours.process = ours.namespace.start(*command, env=environment, stdout=log, stderr=log)
            wait_until(lambda: ours.is_ready, "readiness")
        theirs.start()
        introduce(ours, theirs, 4, None)
        for node in pair.nodes:
            node.bring_up()

    def with_unread_log(self) -> tuple[int, Pair]:
        """A pair whose end has filled its log, and the end of the pipe that nobody reads."""
        reader, writer = os.pipe()
        self.addCleanup(os.close, reader)
        fcntl(writer, F_SETPIPE_SZ, PIPE)
        pair = self.build()
        with os.fdopen(writer, "wb") as log:
            self.start(pair, log=log)
        pair.handshake()
        write_much(pair.ours)
        return reader, pair

    def helpers(self, node: Node) -> list[int]:
        """The helper processes of a node, ended ones that nobody has collected included."""
        return [pid for pid in procfs.family(node.pid) if procfs.name(pid) == "culvert-helper"]


class StateTests(BlockingCase):
    @culvert_only
    def test_R41_a_frozen_state_directory_stops_nothing(self) -> None:
        """Frozen before the first handshake: its timestamp cannot be stored."""
        with file_system(self) as folder:
            pair = self.build()
            self.start(pair, "--state-dir", str(folder / "state"))
            with frozen(folder):
                pair.handshake()
                self.check_tunnel(pair)
                self.check_end(pair.ours)

    @culvert_only
    def test_R41_a_state_directory_that_hangs_does_not_stop_the_start(self) -> None:
        """It cannot be read. A named pipe, which nobody writes to, hangs like a dead NFS server."""
        pair = self.build()
        folder = LOGS / f"{pair.ours.interface}.state"
        folder.mkdir()
        pipe = folder / pair.ours.interface
        os.mkfifo(pipe)
        start = time.monotonic()
        self.start(pair, "--state-dir", str(folder))
        self.assertLess(time.monotonic() - start, START)
        self.check_tunnel(pair)
        pipe.write_bytes(b"")
        wait_until(lambda: "does not answer" in pair.ours.log, "a line about the directory")
        self.check_end(pair.ours)


class LogTests(BlockingCase):
    @culvert_only
    def test_R42_an_unread_log_stops_nothing_and_omissions_are_counted(self) -> None:
        reader, pair = self.with_unread_log()
        self.check_tunnel(pair)
        text = b""
        os.set_blocking(reader, False)

        def is_told() -> bool:
            nonlocal text
            with contextlib.suppress(BlockingIOError):
                text += os.read(reader, 1 << 16)
            return b"lines were left out" in text

        wait_until(is_told, "the number of omitted lines")
        # Every line is whole.
        for line in text.split(b"\n")[:-1]:
            self.assertRegex(line, rb"^(DEBUG: |ERROR: |culvert: |[a-z0-9-]+ \d+$)")
        write_much(pair.ours)
        self.check_end(pair.ours)

    @culvert_only
    def test_R42_a_log_on_a_frozen_file_system_stops_nothing(self) -> None:
        with file_system(self) as folder:
            pair = self.build()
            with (folder / "log").open("wb") as log:
                self.start(pair, log=log)
            with frozen(folder):
                write_much(pair.ours)
                self.check_tunnel(pair)
                self.check_end(pair.ours)


class HelperTests(BlockingCase):
    """The helper process, which does what may block."""

    @culvert_only
    @each(workers=(1, 3))
    def test_R41_a_killed_helper_is_replaced(self, workers: int) -> None:
        """The tunnel goes on, and the new one writes the log and the state. No zombie is left."""
        pair, folder = self.started("--workers", str(workers))
        (first,) = self.helpers(pair.ours)
        # Beside traffic, any of the workers may start the new one.
        flows = threading.Thread(target=iperf, args=(*pair.nodes, pair.theirs.inner4))
        flows.start()
        time.sleep(0.5)
        os.kill(first, signal.SIGKILL)
        flows.join()
        self.check_tunnel(pair)
        (second,) = self.helpers(pair.ours)
        self.assertNotEqual(first, second)
        self.check_small(second)
        wait_until(lambda: "started another" in pair.ours.log, "a line about the helper")
        (folder / pair.ours.interface).unlink()
        self.check_end(pair.ours)
        self.assertTrue((folder / pair.ours.interface).exists(), "the state was not stored")

    @culvert_only
    def test_R41_without_a_helper_the_tunnel_goes_on(self) -> None:
        """It is replaced once a minute at most; then nothing is logged or stored."""
        pair, _ = self.started()
        for expected in ("started another", "nothing is logged or stored"):
            for helper in self.helpers(pair.ours):
                os.kill(helper, signal.SIGKILL)
            wait_until(lambda text=expected: text in pair.ours.log, expected)
        self.assertEqual(self.helpers(pair.ours), [])
        before = procfs.wake_ups(pair.ours.pid)
        time.sleep(0.5)
        self.assertLess(procfs.wake_ups(pair.ours.pid) - before, 20)
        write_much(pair.ours)
        self.check_tunnel(pair)
        self.check_end(pair.ours)

    @culvert_only
    @each(log=("read", "unread"), number=(signal.SIGTERM, signal.SIGKILL))
    def test_R42_the_helper_ends_with_the_process(self, log: str, number: int) -> None:
        """Nothing then keeps its outputs open, whatever has ended the process."""
        _, pair = self.with_unread_log() if log == "unread" else (0, self.started()[0])
        helpers = self.helpers(pair.ours)
        self.assertEqual(len(helpers), 1)
        pair.ours.stop(number)
        wait_until(lambda: not procfs.is_running(helpers[0]), "the helper's end", END)

    @culvert_only
    @each(close_range=(True, False))
    def test_R61_the_helper_of_a_daemon_keeps_nothing(self, close_range: bool) -> None:
        """No directory, and no descriptors but its outputs and its two sockets.

        Without close_range(2), before Linux 5.9, /proc is read.
        """
        node = self.node()
        command = self.settings.program.command(node.interface, foreground=False)
        folder = LOGS / f"{node.interface}.folder"
        folder.mkdir()
        with (folder / "file").open("w") as file:
            number = file.fileno()
            prepare = None if close_range else lambda: refuse_call(CLOSE_RANGE, errno.ENOSYS)
            result = node.namespace.attempt(
                *command, cwd=folder, pass_fds=(number,), preexec_fn=prepare
            )
            name = os.readlink(f"/proc/self/fd/{number}")
        self.assertEqual(result.returncode, 0, result.stderr)
        (pid,) = node.namespace.pids()
        self.assertNotIn(name, procfs.descriptors(pid).values())
        (helper,) = [it for it in procfs.family(pid) if it != pid]
        self.assertEqual(os.readlink(f"/proc/{helper}/cwd"), "/")
        targets = sorted(procfs.descriptors(helper).values())
        self.assertEqual(targets[:3], ["/dev/null"] * 3)
        self.assertEqual([it.partition(":")[0] for it in targets[3:]], ["socket"] * 2)
        self.check_small(helper)
        os.kill(pid, signal.SIGTERM)
        for process in (pid, helper):
            wait_until(lambda it=process: not procfs.is_running(it), "the end")
        self.assertEqual(node.leftovers(), [])

    def check_small(self, helper: int) -> None:
        """It uses little memory, and the arena with the keys is not mapped."""
        used = procfs.private_memory(helper)
        mapped = 1024 * procfs.status_field(helper, "VmData")
        print(f"helper process: {used >> 10} KB of private memory, {mapped >> 10} KB mapped")
        if self.settings.program.is_static:
            self.assertLess(used, HELPER_MEMORY)
            self.assertLess(mapped, HELPER_MAPPED)

    def started(self, *options: str) -> tuple[Pair, pathlib.Path]:
        """A pair with a session, and the state directory of our end."""
        pair = self.build()
        folder = LOGS / f"{pair.ours.interface}.state"
        self.start(pair, "--state-dir", str(folder), *options)
        pair.handshake()
        return pair, folder


def write_much(node: Node) -> None:
    """More lines than fit the queue of the log and a small pipe."""
    for _ in range(60):
        os.kill(node.pid, signal.SIGUSR1)
        time.sleep(0.01)


@contextlib.contextmanager
def frozen(folder: pathlib.Path) -> Iterator[None]:
    """Until the end, nobody can write to the file system of this folder."""
    subprocess.run(["fsfreeze", "-f", str(folder)], check=True)
    try:
        yield
    finally:
        subprocess.run(["fsfreeze", "-u", str(folder)], check=False)


@contextlib.contextmanager
def file_system(test: InteropCase) -> Iterator[pathlib.Path]:
    """A file system of its own, which can be frozen."""
    folder = LOGS / test.id().rpartition(".")[2]
    image = folder.with_suffix(".img")
    with image.open("wb") as file:
        file.truncate(8 << 20)
    subprocess.run(["mkfs.ext4", "-q", str(image)], check=True)
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-o", "loop", str(image), str(folder)], stderr=subprocess.PIPE, text=True
    )
    if mounted.returncode != 0:
        test.skipTest(f"no loop mounts: {mounted.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=False)
