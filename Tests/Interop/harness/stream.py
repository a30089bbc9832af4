"""TCP transfers of random bytes, compared by SHA-256, with what can be set for a connection."""

import contextlib
import hashlib
import os
import random
import socket
import threading

from .node import Node

PORT = 5301
CHUNK = 1 << 20  # bytes made and sent at a time
PATIENCE = 60.0  # seconds in which something must move


def stream(
    source: Node,
    target: Node,
    address: str,
    byte_count: int,
    max_segment: int = 0,
    write_up_to: int = 0,
    port: int = PORT,
) -> None:
    """Send random bytes and compare; AssertionError where they differ.

    `max_segment` is the MSS of both ends (0: the kernel's); with `write_up_to` each write is of its
    own random size up to that, and is sent at once.
    """
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    received, arrived = hashlib.sha256(), [0]
    listener = target.namespace.socket(family, socket.SOCK_STREAM)
    sender = source.namespace.socket(family, socket.SOCK_STREAM)
    with listener, sender:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if max_segment:
            for end in (listener, sender):
                end.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, max_segment)
        listener.bind((address, port))
        listener.listen(1)
        listener.settimeout(PATIENCE)
        collector = threading.Thread(target=collect, args=(listener, received, arrived))
        collector.daemon = True
        collector.start()
        sender.settimeout(PATIENCE)
        sender.connect((address, port))
        expected = send(sender, byte_count, write_up_to)
        sender.shutdown(socket.SHUT_WR)
        collector.join(2 * PATIENCE)
    if arrived[0] != byte_count:
        raise AssertionError(f"{arrived[0]} of {byte_count} bytes arrived at {address}")
    if received.digest() != expected:
        raise AssertionError(f"{byte_count} bytes to {address} arrived changed")


def collect(listener: socket.socket, received, arrived: list[int]) -> None:
    """Hash what the first connection brings, and count it."""
    with contextlib.suppress(OSError):
        connection, _ = listener.accept()
        with connection:
            connection.settimeout(PATIENCE)
            while chunk := connection.recv(CHUNK):
                received.update(chunk)
                arrived[0] += len(chunk)


def send(sender: socket.socket, byte_count: int, write_up_to: int) -> bytes:
    """Send random bytes; their digest."""
    digest, chance = hashlib.sha256(), random.Random(byte_count)
    if write_up_to:
        sender.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    while byte_count > 0:
        chunk = os.urandom(min(CHUNK, byte_count))
        byte_count -= len(chunk)
        digest.update(chunk)
        if not write_up_to:
            sender.sendall(chunk)
        while write_up_to and chunk:
            size = chance.randint(1, write_up_to)
            sender.sendall(chunk[:size])
            chunk = chunk[size:]
    return digest.digest()
