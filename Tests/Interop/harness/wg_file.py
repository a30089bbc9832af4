"""Configuration files as wg(8) and wg-quick(8) read them."""

from .node import LOGS, Node

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
    """The path of a file for a node's end of its tunnel with another.

    With `address` and `port` the file tells the node's own; `interface` and `peer` are further
    lines of the two sections.
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
    """Readable by its owner only, as wg(8) wants it; the path."""
    path = LOGS / name
    path.touch(0o600)
    path.write_text(text)
    return str(path)
