"""A numbered stream of UDP datagrams, to find those that a change of configuration loses."""

import socket
import threading
import time

from harness.lab.node import Node
from harness.waiting import wait_until

FIRST_PORT = 5401
SO_RCVBUFFORCE, BUFFER = 33, 8 << 20  # bytes; enough while this process does not run


class Flow:
    """Datagrams of four bytes, numbered, at an even pace from one node to another."""

    def __init__(self, source: Node, target: Node, interval: float = 0.01, port: int = FIRST_PORT):
        self.address, self.interval = (target.inner4, port), interval
        self.sender = source.namespace.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.receiver = target.namespace.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.receiver.bind(self.address)
        self.receiver.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, BUFFER)
        self.receiver.settimeout(0.2)
        self.sent, self.received = 0, set()
        self.duplicates = 0
        self.sending = self.receiving = True
        self.threads = [
            threading.Thread(target=body, daemon=True) for body in (self.send, self.receive)
        ]

    def __enter__(self) -> "Flow":
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, *_error) -> None:
        self.finish()

    def send(self) -> None:
        while self.sending:
            try:
                self.sender.sendto(self.sent.to_bytes(4, "big"), self.address)
            except OSError:
                pass  # an unreachable target counts as lost
            self.sent += 1
            time.sleep(self.interval)

    def receive(self) -> None:
        while self.receiving:
            try:
                number = int.from_bytes(self.receiver.recv(64), "big")
            except TimeoutError:
                continue
            self.duplicates += number in self.received
            self.received.add(number)

    def finish(self, grace: float = 2.5) -> None:
        """Stop sending, and wait until nothing has arrived for `grace` seconds."""
        if not self.receiving:
            return
        self.sending = False
        self.threads[0].join()
        count, silent = -1, 0.0
        while len(self.received) < self.sent and silent < grace:
            silent = silent + 0.02 if count == len(self.received) else 0.0
            count = len(self.received)
            time.sleep(0.02)
        self.receiving = False
        self.threads[1].join()
        self.sender.close()
        self.receiver.close()

    @property
    def lost(self) -> list[int]:
        return sorted(set(range(self.sent)) - self.received)

    def await_progress(self, count: int = 10, seconds: float = 15) -> None:
        """Wait until `count` datagrams sent from now on have arrived."""
        mark = self.sent
        wait_until(
            lambda: sum(number >= mark for number in list(self.received)) >= count,
            f"{count} more datagrams",
            seconds,
        )
