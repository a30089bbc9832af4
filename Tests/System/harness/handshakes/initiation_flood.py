"""A flood of handshake initiations with a valid mac1 (initiation_flood.c), a separate process."""

import base64
import subprocess
import threading

from harness.lab.faults import compiler
from harness.lab.namespace import Namespace
from harness.lab.node import LOGS
from harness.settings import REPOSITORY

SOURCE = REPOSITORY / "Tests/System/harness/handshakes/initiation_flood.c"
PROGRAM = LOGS / "initiation-flood"
building = threading.Lock()


class InitiationFlood:
    """Initiations for the hub's public key, from one namespace to a port, until it is stopped."""

    def __init__(self, namespace: Namespace, target: str, port: int, key: str, rate: int,
                 seconds: float):  # fmt: skip
        with building:
            if not PROGRAM.exists():
                build()
        self.seconds = seconds
        self.process = namespace.start(
            str(PROGRAM), target, str(port), base64.b64decode(key).hex(), f"{seconds:g}",
            str(rate), stdout=subprocess.PIPE, text=True)  # fmt: skip

    def finish(self) -> float:
        """Messages sent per second."""
        output, _ = self.process.communicate(timeout=self.seconds + 30)
        assert self.process.returncode == 0, f"the flood ended with {self.process.returncode}"
        return int(output) / self.seconds


def build() -> None:
    command = [compiler(), "-std=gnu11", "-O2", "-Wall", "-Wextra", "-Werror"]
    fresh = PROGRAM.with_suffix(".new")
    subprocess.run([*command, str(SOURCE), "-o", str(fresh)], check=True)
    fresh.rename(PROGRAM)
