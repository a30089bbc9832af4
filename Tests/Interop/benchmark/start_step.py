"""How long it takes from the start of the process to the first answer through the tunnel."""

import time

from harness.echo import ping
from harness.lab import Lab
from harness.node import LOGS, Node
from harness.pair import place
from harness.program import Program

from .steps import Figures

READY_INTERVAL = 0.001  # seconds between looks whether the program takes configuration


def start(program: Program) -> Figures:
    """Start one end against another that waits for it; milliseconds.

    The configuration by wg(8) and ip(8) is part of it and takes alike with all programs.
    """
    lab = Lab()
    try:
        ours, theirs = waiting_end(lab, program)
        path = configuration(ours, theirs)
        begin = time.monotonic()
        ours.start(level="error", interval=READY_INTERVAL)
        ready = time.monotonic()
        ours.wg("setconf", ours.interface, path)
        ours.bring_up()
        answered = ping(ours, theirs.inner4, 1, wait=10).received
        end = time.monotonic()
    finally:
        lab.close()
    if not answered:
        raise AssertionError("no answer through the tunnel within 10 s of its start")
    return {"start_ready": 1000 * (ready - begin), "start_first": 1000 * (end - begin)}


def waiting_end(lab: Lab, program: Program) -> tuple[Node, Node]:
    """(ours, theirs): the latter runs, and knows the former, which is not started."""
    left, right = lab.namespace("ours"), lab.namespace("theirs")
    lab.connect(left, right)
    ours, theirs = lab.node(left, program, "ours"), lab.node(right, program, "theirs")
    place(ours, theirs)
    theirs.start(level="error")
    theirs.set("listen-port", str(theirs.port), secrets={"private-key": theirs.keys.private})
    theirs.add_peer(ours)
    theirs.bring_up()
    # Address resolution outside the tunnel is not what is measured.
    ping(ours, theirs.outer4, 1)
    return ours, theirs


def configuration(ours: Node, theirs: Node) -> str:
    """The path of a file for `wg setconf`."""
    path = LOGS / f"{ours.interface}.conf"
    path.touch(0o600)
    path.write_text(f"""[Interface]
PrivateKey = {ours.keys.private}
ListenPort = {ours.port}
[Peer]
PublicKey = {theirs.keys.public}
AllowedIPs = {theirs.allowed_ips}
Endpoint = {theirs.endpoint()}
""")
    return str(path)
