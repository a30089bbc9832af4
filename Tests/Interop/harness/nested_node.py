"""One process with the tunnels of several hops, each inside the next."""

import os
import re
import signal

from .deadline import wait_until
from .node import SOCKETS, Node

# "wg0-1 sent 17"; with one tunnel the name of the interface is left out.
COUNTER_LINE = re.compile(r"(?:(\S+) )?([a-z0-9-]+) (\d+)")
QUIET = 0.15  # seconds without another line


class NestedNode(Node):
    """Itself it is the end of the innermost tunnel, which alone has an interface.

    `hops[0]` is the end of the tunnel around it, as `wg show IFNAME-1` tells it, and so on outward.
    """

    def __init__(self, namespace, program, role):
        super().__init__(namespace, program, role)
        self.hops: list[Node] = []

    def add_hop(self) -> Node:
        hop = Node(self.namespace, self.program, f"{self.role}-{len(self.hops) + 1}")
        hop.interface = f"{self.interface}-{len(self.hops) + 1}"
        self.hops.append(hop)
        return hop

    @property
    def answers(self) -> bool:
        return super().answers and all(hop.answers for hop in self.hops)

    def leftovers(self) -> list[str]:
        outward = sorted(map(str, SOCKETS.glob(f"{self.interface}-*.sock")))
        return super().leftovers() + outward

    def counters(self) -> dict[tuple[str, str], int]:
        """What SIGUSR1 tells, by interface ("wg0", "wg0-1") and name."""
        start = self.log_path.stat().st_size
        os.kill(self.pid, signal.SIGUSR1)
        size = start

        def is_told() -> bool:
            nonlocal size
            before, size = size, self.log_path.stat().st_size
            return start < size == before

        wait_until(is_told, "counters on standard error", interval=QUIET)
        with self.log_path.open("rb") as log:
            log.seek(start)
            lines = log.read().decode(errors="replace").splitlines()
        found = [match.groups() for line in lines if (match := COUNTER_LINE.fullmatch(line))]
        return {(owner or self.interface, name): int(count) for owner, name, count in found}

    def count(self, name: str, hop: int = 0) -> int:
        """One counter, of the innermost tunnel or of the one so many hops further out."""
        owner = self.hops[hop - 1].interface if hop else self.interface
        return self.counters().get((owner, name), 0)
