"""A client that only makes handshakes: many of them, at any pace, with or without a cookie."""

import base64
import os
import select
import socket
import struct
import time

from known_answers.primitives import BASE, blake2s, counter_nonce, hkdf, seal, x25519, xseal

CONSTRUCTION = b"Noise_IKpsk2_25519_ChaChaPoly_BLAKE2s"
IDENTIFIER = b"WireGuard v1 zx2c4 Jason@zx2c4.com"
INITIATION, RESPONSE, COOKIE_REPLY = 1, 2, 3
TAI64 = (1 << 62) + 10


class Initiator:
    """One identity. It makes initiations for one responder, and opens its cookie replies."""

    def __init__(self, responder: str):
        self.private = os.urandom(32)
        self.public = x25519(self.private, BASE)
        self.responder = base64.b64decode(responder)
        self.shared = x25519(self.private, self.responder)
        self.ephemeral = os.urandom(32)
        self.ephemeral_public = x25519(self.ephemeral, BASE)
        self.ephemeral_shared = x25519(self.ephemeral, self.responder)
        self.cookie: bytes | None = None
        self.last_mac1 = b""
        self.index = b""

    @property
    def public_text(self) -> str:
        return base64.b64encode(self.public).decode()

    def initiation(self) -> bytes:
        """A new message, with the cookie if there is one. The ephemeral key is always the same."""
        self.index = os.urandom(4)
        digest = blake2s(blake2s(CONSTRUCTION) + IDENTIFIER)
        digest = blake2s(digest + self.responder)
        chaining_key = hkdf(blake2s(CONSTRUCTION), self.ephemeral_public, 1)[0]
        digest = blake2s(digest + self.ephemeral_public)
        chaining_key, key = hkdf(chaining_key, self.ephemeral_shared, 2)
        static = seal(key, counter_nonce(0), self.public, digest)
        digest = blake2s(digest + static)
        chaining_key, key = hkdf(chaining_key, self.shared, 2)
        seconds, nanoseconds = divmod(time.time_ns(), 10**9)
        stamp = struct.pack(">QI", TAI64 + seconds, nanoseconds)
        message = struct.pack("<I", INITIATION) + self.index + self.ephemeral_public + static
        message += seal(key, counter_nonce(0), stamp, digest)
        self.last_mac1 = blake2s(message, 16, blake2s(b"mac1----" + self.responder))
        message += self.last_mac1
        return message + (blake2s(message, 16, self.cookie) if self.cookie else bytes(16))

    def take(self, message: bytes) -> int:
        """Handle an answer; its type if it answers the last initiation, else 0."""
        (kind,) = struct.unpack_from("<I", message)
        if kind == RESPONSE and message[8:12] == self.index:
            return kind
        if kind == COOKIE_REPLY and message[4:8] == self.index:
            nonce, sealed = message[8:32], message[32:48]
            key = blake2s(b"cookie--" + self.responder)
            # The stream cipher is its own inverse. Nobody forges replies here, so no tag.
            self.cookie = xseal(key, nonce, sealed, self.last_mac1)[:16]
            return kind
        return 0


def await_answer(connection: socket.socket, initiator: Initiator, seconds: float) -> int:
    """The type of the answer to the last initiation, 0 if none arrives in time."""
    end = time.monotonic() + seconds
    while (remaining := end - time.monotonic()) > 0:
        if select.select([connection], [], [], remaining)[0]:
            if kind := initiator.take(connection.recv(256)):
                return kind
    return 0
