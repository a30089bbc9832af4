"""The namespaces and nodes of one test, and their removal."""

import re

from harness.lab.namespace import Namespace, join
from harness.lab.node import Node
from harness.settings import Program


class Lab:
    """Everything a test builds. close() removes it and reports what the programs left behind."""

    def __init__(self) -> None:
        self.namespaces: list[Namespace] = []
        self.nodes: list[Node] = []

    def namespace(self, role: str) -> Namespace:
        created = Namespace(role)
        self.namespaces.append(created)
        return created

    def node(self, namespace: Namespace, program: Program, role: str) -> Node:
        created = Node(namespace, program, role)
        self.nodes.append(created)
        return created

    def connect(self, left: Namespace, right: Namespace, mtu: int = 1500) -> None:
        """Join two namespaces: 198.51.100.1 and .2, 2001:db8::1 and ::2, on `outer`."""
        join(left, right, "outer", "outer", mtu)
        for number, namespace in ((1, left), (2, right)):
            namespace.ip(f"addr add 198.51.100.{number}/24 dev outer")
            if namespace.has_ipv6 and mtu >= 1280:  # below that Linux has no IPv6
                namespace.ip(f"addr add 2001:db8::{number}/64 dev outer nodad")

    def logs(self) -> str:
        return "\n".join(
            f"--- {node.role} ({node.program.name}, {node.interface})\n{tail(node.log)}"
            for node in self.nodes
        )

    def close(self) -> list[str]:
        """End all programs; returns a description of each problem."""
        complaints = []
        for node in self.nodes:
            if node.is_running:
                complaints += end(node)
        for namespace in self.namespaces:
            namespace.close()
        return complaints


def end(node: Node) -> list[str]:
    """Stop a node that a test left running."""
    try:
        status = node.stop()
    except AssertionError as error:
        return [str(error)]
    complaints = [f"{node.role} left {thing}" for thing in node.leftovers()]
    if status != 0:
        complaints.append(f"{node.role} ended with status {status} on SIGTERM")
    return complaints


def tail(text: str, lines: int = 60) -> str:
    """The last lines of a log; runs of lines that differ only in digits become one line."""
    squashed: list[tuple[str, int]] = []
    for line in text.splitlines():
        if squashed and shape(squashed[-1][0]) == shape(line):
            squashed[-1] = line, squashed[-1][1] + 1
        else:
            squashed.append((line, 1))
    omitted = len(squashed) - lines
    head = [f"... {omitted} lines before"] if omitted > 0 else []
    body = [f"{line}  ({count} times)" if count > 1 else line for line, count in squashed]
    return "\n".join(head + body[-lines:])


def shape(line: str) -> str:
    return re.sub(r"\d+", "0", line)
