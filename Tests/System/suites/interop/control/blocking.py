"""Nothing that blocks stops the tunnel: a frozen file system, a log that nobody reads."""

import os
import pathlib
import signal
import subprocess
import time
from fcntl import F_SETPIPE_SZ, fcntl

from harness.case import InteropCase, culvert_only
from harness.lab.node import LOGS
from harness.lab.pair import Pair, introduce, place
from harness.traffic.ping import ping
from harness.waiting import wait_until

ANSWER = 0.1  # seconds within which wg(8) must be answered
END = 1.0  # seconds from SIGTERM to the end
MARGIN = 0.5  # seconds for starting wg(8) on a busy machine
PIPE = 4096


class BlockingTests(InteropCase):
    @culvert_only
    def test_R41_a_frozen_state_directory_stops_nothing(self) -> None:
        """Frozen before the first handshake: its timestamp cannot be stored."""
        folder = self.file_system()
        pair = self.started("--state-dir", str(folder / "state"))
        subprocess.run(["fsfreeze", "-f", str(folder)], check=True)
        try:
            pair.handshake()
            self.check_alive(pair)
            start = time.monotonic()
            self.assertEqual(pair.ours.stop(signal.SIGTERM, 5), 0)
            self.assertLess(time.monotonic() - start, END)
        finally:
            subprocess.run(["fsfreeze", "-u", str(folder)], check=False)
        self.assertEqual(pair.ours.leftovers(), [])

    @culvert_only
    def test_R42_an_unread_log_stops_nothing_and_omissions_are_counted(self) -> None:
        reader, writer = os.pipe()
        fcntl(writer, F_SETPIPE_SZ, PIPE)  # soon full
        self.addCleanup(os.close, reader)
        with_log = os.fdopen(writer, "wb")
        pair = self.started(log=with_log)
        with_log.close()
        pair.handshake()
        for _ in range(150):
            os.kill(pair.ours.pid, signal.SIGUSR1)
            time.sleep(0.02)
        self.check_alive(pair)
        text = b""
        os.set_blocking(reader, False)

        def is_told() -> bool:
            nonlocal text
            try:
                text += os.read(reader, 1 << 16)
            except BlockingIOError:
                pass
            return b"lines were left out" in text

        wait_until(is_told, "the number of omitted lines")
        os.set_blocking(reader, True)
        for _ in range(300):
            os.kill(pair.ours.pid, signal.SIGUSR1)
            time.sleep(0.01)
        start = time.monotonic()
        self.assertEqual(pair.ours.stop(signal.SIGTERM, 5), 0)
        self.assertLess(time.monotonic() - start, END)

    def check_alive(self, pair: Pair) -> None:
        result = ping(pair.ours, pair.theirs.inner4, count=20, interval=0.05)
        self.assertEqual(result.received, 20, result)
        start = time.monotonic()
        pair.ours.wg("show", pair.ours.interface)
        self.assertLess(time.monotonic() - start, ANSWER + MARGIN)

    def started(self, *options: str, log=None) -> Pair:
        """A pair whose own end has these options and, if given, writes its log to a pipe."""
        left, right = self.lab.namespace("ours"), self.lab.namespace("theirs")
        self.lab.connect(left, right, 1500)
        settings = self.settings
        ours = self.lab.node(left, settings.program, "ours")
        theirs = self.lab.node(right, settings.peer, "theirs")
        place(ours, theirs)
        if log is None:
            ours.start(options=options)
        else:
            environment = dict(os.environ, LOG_LEVEL="verbose", **settings.program.environment)
            ours.process = left.start(
                *settings.program.command(ours.interface), env=environment, stdout=log, stderr=log
            )
            wait_until(lambda: ours.is_ready, "readiness")
        theirs.start()
        introduce(ours, theirs, 4, None)
        for node in (ours, theirs):
            node.bring_up()
        return Pair(ours, theirs, ours, theirs)

    def file_system(self) -> pathlib.Path:
        """A file system of its own, which can be frozen."""
        image, folder = LOGS / "frozen.img", LOGS / "frozen"
        with image.open("wb") as file:
            file.truncate(8 << 20)
        subprocess.run(["mkfs.ext4", "-q", str(image)], check=True)
        folder.mkdir()
        mounted = subprocess.run(
            ["mount", "-o", "loop", str(image), str(folder)], stderr=subprocess.PIPE, text=True
        )
        if mounted.returncode != 0:
            self.skipTest(f"no loop mounts: {mounted.stderr.strip()}")
        self.addCleanup(subprocess.run, ["umount", "-l", str(folder)], check=False)
        return folder
