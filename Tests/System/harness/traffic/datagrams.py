"""Numbered datagrams with checksums from one node to another: lost, changed, late, doubled."""

import contextlib
import dataclasses
import itertools
import json
import pathlib
import subprocess
import sys
from collections.abc import Iterator

from harness.lab.node import Node

PROGRAM = pathlib.Path(__file__).with_name("numbered_datagrams.py")
ports = itertools.cycle(range(20000, 30000))


@dataclasses.dataclass
class Arrivals:
    """Counts of datagrams, which are numbered from 0."""

    sent: int = 0
    refused: int = 0  # sends that failed
    received: int = 0
    changed: int = 0  # other bytes or another length
    late: int = 0  # after one with a higher number
    doubled: int = 0
    joined: int = 0  # receive calls that returned several datagrams
    highest: int = -1
    lost: list = dataclasses.field(default_factory=list)  # runs: [first, count]
    latest: list = dataclasses.field(default_factory=list)  # some of the late: [number, highest]

    @property
    def lost_count(self) -> int:
        return self.sent - (self.received - self.doubled)


class Datagrams:
    """A running stream; `finish` ends it."""

    def __init__(
        self,
        source: Node,
        target: Node,
        address: str,
        count: int,
        sizes: tuple[int, int] = (64, 1300),
        rate: float = 0,
        segments: bool = False,
        gro: bool = False,
        ip_options: bool = False,
    ):
        way = "segments" if segments else "options" if ip_options else "plain"
        port = str(next(ports))
        words = [sys.executable, str(PROGRAM)]
        self.receiver = target.namespace.start(
            *words, "receive", address, port, "gro" if gro else "plain",
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)  # fmt: skip
        assert self.receiver.stdout.readline() == "ready\n", "the receiver did not start"
        self.sender = source.namespace.start(
            *words, "send", address, port, way, f"{sizes[0]}-{sizes[1]}", str(count), str(rate),
            stdout=subprocess.PIPE, text=True)  # fmt: skip

    @property
    def is_sending(self) -> bool:
        return self.sender.poll() is None

    def finish(self, seconds: float = 120) -> Arrivals:
        """Wait for the sender to end, and for the datagrams in flight."""
        told, _ = self.sender.communicate(timeout=seconds)
        counted, _ = self.receiver.communicate(timeout=seconds)
        return Arrivals(**json.loads(told), **json.loads(counted))

    def end(self) -> None:
        for process in (self.sender, self.receiver):
            process.kill()
            process.wait()
            process.stdout.close()
        with contextlib.suppress(OSError):
            self.receiver.stdin.close()


@contextlib.contextmanager
def datagrams(*arguments, **options) -> Iterator[Datagrams]:
    """A stream that runs during a `with` block."""
    running = Datagrams(*arguments, **options)
    try:
        yield running
    finally:
        running.end()


def send_datagrams(*arguments, **options) -> Arrivals:
    """Run a whole stream."""
    with datagrams(*arguments, **options) as running:
        return running.finish()
