"""Handshake timestamps, as a peer sees them and as the state file has them."""

import os
import signal
import socket
import struct
import time

from harness.case import InteropCase, culvert_only
from harness.handshakes.initiator import CONSTRUCTION, IDENTIFIER, INITIATION, TAI64
from harness.lab.control import UAPIConnection
from harness.lab.node import LOGS, hexadecimal
from known_answers.primitives import BASE, blake2s, counter_nonce, hkdf, seal, x25519

SILENT, SILENT_NETWORK = 1000, "203.0.113"
WATCHED = 12  # seconds: two initiations to each peer, and more
AHEAD = 1.0  # seconds by which a timestamp may be ahead of the clock
SLACK = 4500  # seconds by which the last timestamp is later than the one in the state file
BYTES, PORT = 12, 40123


class TimestampTests(InteropCase):
    @culvert_only
    def test_R46_many_silent_peers_do_not_push_timestamps_ahead(self) -> None:
        """Neither those of handshakes with one of 1,000 peers, nor the stored one."""
        hub = self.node()
        folder = LOGS / f"{hub.interface}.state"
        hub.start(profile="gateway", level="error", options=("--state-dir", str(folder)))
        hub.namespace.ip(
            "tuntap add silence mode tun",
            f"addr add {SILENT_NETWORK}.1/24 dev silence",
            "link set silence up",
        )
        hub.bring_up()
        private = os.urandom(32)
        with (
            hub.namespace.socket(socket.AF_INET, socket.SOCK_DGRAM) as peer,
            UAPIConnection(hub.socket_path) as connection,
        ):
            peer.bind(("127.0.0.1", PORT))
            endpoints = [f"{SILENT_NETWORK}.{2 + it % 250}:51820" for it in range(SILENT - 1)]
            lines = [f"private_key={hexadecimal(hub.keys.private)}"]
            lines += self.peer(x25519(private, BASE), f"127.0.0.1:{PORT}")
            for endpoint in endpoints:
                lines += self.peer(os.urandom(31) + b"\x40", endpoint)
            self.assertEqual(connection.set(*lines), 0)
            ahead = self.watch(peer, private)
        print(f"timestamps ahead of the clock by {', '.join(f'{it:.2f}' for it in ahead)} s")
        self.assertGreaterEqual(len(ahead), 2)
        self.assertLessEqual(max(ahead), AHEAD)
        self.assertEqual(hub.stop(signal.SIGTERM), 0)
        stored = seconds((folder / hub.interface).read_bytes()) - time.time()
        print(f"the stored timestamp is ahead of the clock by {stored:.2f} s")
        self.assertLessEqual(stored, AHEAD)
        # The next run continues after this time.
        self.assertLessEqual(stored + SLACK, AHEAD)

    def peer(self, key: bytes, endpoint: str) -> list[str]:
        return [
            f"public_key={key.hex()}",
            f"endpoint={endpoint}",
            "persistent_keepalive_interval=1",
        ]

    def watch(self, peer: socket.socket, private: bytes) -> list[float]:
        """By how many seconds each timestamp that the peer gets is ahead of the clock."""
        found = []
        end = time.monotonic() + WATCHED
        while (left := end - time.monotonic()) > 0:
            peer.settimeout(left)
            try:
                message = peer.recv(2048)
            except TimeoutError:
                break
            now = time.time()
            if message[0] == INITIATION:
                found.append(seconds(open_timestamp(message, private)) - now)
        return found


def seconds(stamp: bytes) -> float:
    """A TAI64N timestamp as seconds since 1970."""
    whole, nanoseconds = struct.unpack(">QI", stamp)
    return whole - TAI64 + nanoseconds / 10**9


def open_timestamp(message: bytes, private: bytes) -> bytes:
    """The timestamp in an initiation, for the responder with this private key."""
    ephemeral, static, stamp = message[8:40], message[40:88], message[88:116]
    digest = blake2s(blake2s(CONSTRUCTION) + IDENTIFIER)
    digest = blake2s(blake2s(digest + x25519(private, BASE)) + ephemeral)
    chaining_key = hkdf(blake2s(CONSTRUCTION), ephemeral, 1)[0]
    chaining_key, key = hkdf(chaining_key, x25519(private, ephemeral), 2)
    initiator = decrypt(key, static[:32], digest)
    _, key = hkdf(chaining_key, x25519(private, initiator), 2)
    return decrypt(key, stamp[:BYTES], digest)


def decrypt(key: bytes, text: bytes, digest: bytes) -> bytes:
    """Without checking the tag: encrypting is the same operation."""
    return seal(key, counter_nonce(0), text, digest)[: len(text)]
