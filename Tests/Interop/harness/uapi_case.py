"""The base of the tests that speak the configuration protocol by raw socket."""

import errno

from .case import InteropCase
from .keys import KeyPair, hexadecimal
from .uapi import UAPIConnection

EINVAL, EPROTO = -errno.EINVAL, -errno.EPROTO
ZERO_KEY = "00" * 32


class UAPICase(InteropCase):
    """One started node of the program under test, and a connection to it."""

    def setUp(self) -> None:
        super().setUp()
        self.ours = self.node()
        self.ours.start()
        self.uapi = self.connect()
        self.peer = hexadecimal(KeyPair.generate().public)

    def connect(self) -> UAPIConnection:
        connection = UAPIConnection(self.ours.socket_path)
        self.addCleanup(connection.socket.close)
        return connection

    def apply(self, *lines: str) -> None:
        """A `set` that must succeed."""
        self.assertEqual(self.uapi.set(*lines), 0, lines)

    def device(self) -> dict[str, str]:
        """The lines before the first peer."""
        lines = self.uapi.get()
        keys = [key for key, _ in lines]
        return dict(lines[: keys.index("public_key") if "public_key" in keys else None])

    def peers(self) -> dict[str, dict[str, list[str]]]:
        """Per public key, the values of each key."""
        found, current = {}, None
        for key, value in self.uapi.get():
            if key == "public_key":
                current = found.setdefault(value, {})
            elif current is not None:
                current.setdefault(key, []).append(value)
        return found

    def allowed_ips(self, peer: str) -> set[str]:
        return set(self.peers()[peer].get("allowed_ip", []))
