"""The group `nested`: one tunnel, and two hops in different arrangements."""

import dataclasses

from harness.lab.chain import Chain, Shape
from harness.lab.control import EVERYTHING, wg_file
from harness.lab.lab import Lab
from harness.lab.node import NestedNode, Node, preshared_key
from harness.lab.pair import Pair, build_pair
from harness.settings import Program
from race.measures import WAYS
from race.steps import GIGABYTE, Figures, cpu_seconds, run_tcp

FIRST_TUNNEL, FIRST_PORT = 71, 51871  # the outer tunnel; the inner one follows


@dataclasses.dataclass(frozen=True)
class Nest:
    """`pair` are the ends of the innermost tunnel, `nodes` all that have a process."""

    pair: Pair
    nodes: list[Node]


class Stack(Chain):
    """A chain whose client may also be one process for each hop, with all offloads.

    The tests start such programs without offloads, because they mishandle datagrams that do not
    fit into the outer tunnel. Here all datagrams fit.
    """

    def start_stack(self) -> None:
        for number, (end, server) in enumerate(zip(self.ends, self.servers)):
            end.start(level="error")
            end.set_private_key(end.keys.private)
            end.bring_up(self.shape.tunnel_mtus[number])
            allowed = EVERYTHING.replace(" ", "")
            end.add_peer(server, self.endpoint(number), allowed, self.preshared[number])
            if number > 0:
                before = self.ends[number - 1].interface
                end.namespace.ip(f"route add {server.outer4}/32 dev {before}")


def single(lab: Lab, program: Program) -> Nest:
    """One tunnel between two namespaces."""
    pair = build_pair(lab, program, program, level="error", peer_level="error")
    pair.handshake(20)
    return Nest(pair, [*pair.nodes])


def twins(lab: Lab, program: Program) -> Nest:
    """Two processes, each with both hops."""
    namespaces = lab.namespace("ours"), lab.namespace("theirs")
    lab.connect(*namespaces)
    nodes = [NestedNode(it, program, it.name.partition("-")[0]) for it in namespaces]
    lab.nodes += nodes
    for number, node in enumerate(nodes, 1):
        hop = node.add_hop()
        hop.outer4 = f"198.51.100.{number}"
        place(hop, FIRST_TUNNEL, number)
        node.outer4 = hop.inner4
        place(node, FIRST_TUNNEL + 1, number)
    keys = preshared_key(), preshared_key()
    for node, other in (nodes, nodes[::-1]):
        inward = wg_file(node, other, other.endpoint(), keys[0], port=True)
        hop, far_hop = node.hops[0], other.hops[0]
        outward = wg_file(hop, far_hop, far_hop.endpoint(), keys[1], port=True)
        node.start(level="error", options=("--config", inward, "--through", outward))
    pair = Pair(*nodes, *nodes)
    pair.handshake(20)
    return Nest(pair, nodes)


def place(node: Node, tunnel: int, number: int) -> None:
    """Addresses and port, which contain the number of the tunnel."""
    node.inner4, node.inner6 = f"10.{tunnel}.0.{number}", f"fd{tunnel}::{number}"
    node.port = FIRST_PORT + tunnel - FIRST_TUNNEL


def chain(lab: Lab, program: Program) -> Nest:
    """A client with both hops, and a server for each; the first server forwards to the second.

    With Culvert the client is one process. With other programs it is one process for each hop, and
    the kernel routes the datagrams of the inner tunnel into the outer one.
    """
    built = Stack(lab, program, program, Shape())
    built.start_client()
    built.handshake(20)
    ends = [it for it in built.ends if it.process]
    return Nest(Pair(built.client, built.exit, built.client, built.exit), [*ends, *built.servers])


# Keyed by the names that the figures use.
ARRANGEMENTS = {"single": single, "twins": twins, "chain": chain}


# The cost of two hops, measured beside a single tunnel.


class NestedRun:
    """One program's part of a round: its arrangements exist at the same time and take turns."""

    def __init__(self, program: Program):
        self.program, self.lab = program, Lab()
        self.nests: dict[str, Nest] = {}
        self.megabits: dict[str, dict[str, float]] = {}  # by arrangement and direction

    @property
    def possible(self) -> list[str]:
        """The arrangements that a program supports: only Culvert nests tunnels itself."""
        return [it for it in ARRANGEMENTS if it != "twins" or self.program.is_culvert]

    def build(self, name: str) -> None:
        """Start an arrangement, and establish sessions in all of its tunnels."""
        self.nests[name] = ARRANGEMENTS[name](self.lab, self.program)

    def tcp(self, name: str, seconds: float) -> Figures:
        """A flow each way, and the processor time of all processes for both."""
        nest = self.nests[name]
        begin = sum(map(cpu_seconds, nest.nodes))
        runs = {way: run_tcp(nest.pair, seconds, reverse=way == "down") for way in WAYS}
        spent = sum(map(cpu_seconds, nest.nodes)) - begin
        self.megabits[name] = {way: run.megabits for way, run in runs.items()}
        figures = {f"nested_{name}_{way}": it for way, it in self.megabits[name].items()}
        gigabytes = sum(run.bytes for run in runs.values()) / GIGABYTE
        return figures | {f"nested_{name}_cpu": spent / gigabytes}

    def shares(self) -> Figures:
        """Throughput relative to the single tunnel, each way."""
        single = self.megabits.get("single", {})
        return {
            f"nested_{name}_{way}_share": megabits[way] / single[way]
            for name, megabits in self.megabits.items()
            for way in WAYS
            if name != "single" and single
        }
