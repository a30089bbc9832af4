"""The configuration protocol on a socket, and configuration files."""

import pathlib
import socket

from harness.lab.node import LOGS, Node


class UAPIConnection:
    """One connection to a UAPI socket; each command's reply ends with errno= and a blank line."""

    def __init__(self, path: pathlib.Path, seconds: float = 15):
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(seconds)
        self.socket.connect(str(path))
        self.buffer = b""

    def __enter__(self) -> "UAPIConnection":
        return self

    def __exit__(self, *_error) -> None:
        self.socket.close()

    def send(self, text: str) -> None:
        self.socket.sendall(text.encode())

    def reply(self) -> list[tuple[str, str]]:
        """The next reply's lines as (key, value), the last being errno."""
        while b"\n\n" not in self.buffer:
            chunk = self.socket.recv(1 << 16)
            if not chunk:
                raise ConnectionError(f"closed after {self.buffer!r}")
            self.buffer += chunk
        block, self.buffer = self.buffer.split(b"\n\n", 1)
        lines = [tuple(line.split("=", 1)) for line in block.decode().split("\n")]
        if lines[-1][0] != "errno":
            raise AssertionError(f"the reply ends with {lines[-1]}, not with errno")
        return lines

    def command(self, text: str) -> list[tuple[str, str]]:
        self.send(text)
        return self.reply()

    def get(self) -> list[tuple[str, str]]:
        """All lines of `get=1` without the errno, which must be 0."""
        *lines, (_, number) = self.command("get=1\n\n")
        if number != "0":
            raise AssertionError(f"get answered errno={number}")
        return lines

    def set(self, *lines: str) -> int:
        """The errno in the reply to `set=1` with these lines."""
        ((_, number),) = self.command("".join(f"{line}\n" for line in ("set=1", *lines, "")))
        return int(number)


# Configuration files as wg(8) and wg-quick(8) read them.

EVERYTHING = "0.0.0.0/0, ::/0"


def wg_file(
    node: Node,
    other: Node,
    endpoint: str | None,
    preshared: str | None = None,
    allowed: str = EVERYTHING,
    address: bool = True,
    port: bool = False,
    interface: tuple[str, ...] = (),
    peer: tuple[str, ...] = (),
) -> str:
    """The path of a configuration file for a node's end of its tunnel with another.

    With `address` and `port` the file has the node's addresses and port; `interface` and `peer` are
    additional lines for the two sections.
    """
    lines = ["[Interface]", f"PrivateKey = {node.keys.private}"]
    addresses = [it for it in (node.inner4 and f"{node.inner4}/24",
                               node.inner6 and f"{node.inner6}/64") if it]  # fmt: skip
    lines += [f"Address = {', '.join(addresses)}"] if address else []
    lines += [f"ListenPort = {node.port}"] if port else []
    lines += [*interface, "", "[Peer]", f"PublicKey = {other.keys.public}"]
    lines += [f"PresharedKey = {preshared}"] if preshared else []
    lines += [f"AllowedIPs = {allowed}"]
    lines += [f"Endpoint = {endpoint}"] if endpoint else []
    return write_file(f"{node.interface}.conf", "\n".join([*lines, *peer, ""]))


def write_file(name: str, text: str) -> str:
    """Write a file that only its owner can read, as wg(8) demands; the path."""
    path = LOGS / name
    path.touch(0o600)
    path.write_text(text)
    return str(path)
