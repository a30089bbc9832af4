"""A flood of handshake initiations with a valid mac1 (initiation_flood.c), a separate process."""

import base64
import subprocess

from harness.handshakes.programs import program
from harness.lab.namespace import Namespace


class InitiationFlood:
    """Initiations for the hub's public key, from one namespace to a port, until it is stopped."""

    def __init__(self, namespace: Namespace, target: str, port: int, key: str, rate: int,
                 seconds: float):  # fmt: skip
        self.seconds = seconds
        self.process = namespace.start(
            program("initiation_flood"), target, str(port), base64.b64decode(key).hex(),
            f"{seconds:g}", str(rate), stdout=subprocess.PIPE, text=True)  # fmt: skip

    def finish(self) -> float:
        """Messages sent per second."""
        output, _ = self.process.communicate(timeout=self.seconds + 30)
        assert self.process.returncode == 0, f"the flood ended with {self.process.returncode}"
        return int(output) / self.seconds
