"""The base of the tests of `culvert forward`."""

import os

from harness.case import InteropCase
from harness.lab.forward import (
    Client,
    ForwardLab,
    build_forward,
)

DNS, ECHO = 53, 7007


class ForwardCase(InteropCase):
    def lab_with(self, *mappings: tuple, options: tuple = (), **choices) -> ForwardLab:
        """A started forward; each mapping as (local port, target port, listen, inner)."""
        lab = build_forward(self.lab, self.settings.program, self.settings.peer, **choices)
        lab.forward.start([lab.mapping(*mapping) for mapping in mappings], *options)
        return lab

    def check_echo(self, client: Client, size: int) -> None:
        data = os.urandom(size)
        # The kernel may lose a datagram, because of fragments or pauses of the machine.
        for _ in range(3):
            answer = client.ask(data)
            if answer is not None:
                break
        self.assertEqual(answer, data, f"{size} bytes")
