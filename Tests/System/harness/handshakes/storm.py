"""Clients that all connect at once (storm.c), a separate process."""

import base64
import dataclasses
import ipaddress
import subprocess

from harness.handshakes.programs import program
from harness.lab.node import Node

NETWORK = ipaddress.ip_network("198.18.0.0/16")


@dataclasses.dataclass
class StormResult:
    """What the clients counted, and when the last one had a session."""

    sessions: int
    initiations: int
    cookies: int
    milliseconds: int


class Storm:
    """A number of clients in the namespace of a node, which connect to a hub."""

    def __init__(self, node: Node, hub: Node, count: int, seconds: float):
        self.seconds = seconds
        # Every address of the network belongs to the node.
        node.namespace.ip(f"route add local {NETWORK} dev lo")
        hub.namespace.ip(f"route add {NETWORK} via {node.outer4}")
        self.process = node.namespace.start(
            program("storm", "-lsodium"), hub.outer4, str(hub.port),
            base64.b64decode(hub.keys.public).hex(), str(NETWORK[1]), str(count), f"{seconds:g}",
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)  # fmt: skip
        self.public_keys = [self.process.stdout.readline().strip() for _ in range(count)]

    def start(self) -> None:
        """All clients connect now; those of an earlier storm do so again."""
        self.process.stdin.write("\n")
        self.process.stdin.flush()

    def finish(self) -> StormResult:
        """Wait until all have a session, or until the time is over."""
        line = self.process.stdout.readline()
        return StormResult(*map(int, line.split()))

    def close(self) -> None:
        self.process.communicate()
