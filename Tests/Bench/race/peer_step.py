"""What many configured peers cost the one that is real."""

import base64
import os
import time

from harness.lab.lab import Lab
from harness.lab.node import LOGS
from harness.lab.pair import Pair, build_pair
from harness.settings import Program
from race.results import percentile
from race.steps import IDLE_INTERVAL, Figures, peak_memory, ping_times, run_tcp

PINGS = 200
STANDARD_PEERS = 256  # what Culvert takes without a larger profile


def peers(program: Program, count: int, seconds: float) -> Figures:
    """One end with so many peers, the last of which is the other end; the rest are nobody's."""
    lab = Lab()
    try:
        profile = "gateway" if count > STANDARD_PEERS else ""
        quiet = {"level": "error", "peer_level": "error"}
        pair = build_pair(lab, program, program, profile=profile, **quiet)
        path = configuration(pair, count)
        begin = time.monotonic()
        pair.ours.wg("setconf", pair.ours.interface, path)
        configured = time.monotonic() - begin
        pair.handshake(20)
        idle = percentile(ping_times(pair, PINGS, IDLE_INTERVAL), 0.5)
        run = run_tcp(pair, seconds)
        peak = peak_memory(pair.ours)
    finally:
        lab.close()
    figures = {"setconf": 1000 * configured, "tcp": run.megabits, "ping": idle, "rss": peak}
    return {f"peers{count}_{name}": value for name, value in figures.items()}


def configuration(pair: Pair, count: int) -> str:
    """The path of a file for `wg setconf`; each peer has an address of 10.128.0.0/9 of its own."""
    ours, theirs = pair.nodes
    lines = ["[Interface]", f"PrivateKey = {ours.keys.private}", f"ListenPort = {ours.port}"]
    for number in range(count - 1):
        key = base64.b64encode(os.urandom(32)).decode()
        address = f"10.128.{number >> 8}.{number & 255}/32"
        lines += ["[Peer]", f"PublicKey = {key}", f"AllowedIPs = {address}"]
    lines += ["[Peer]", f"PublicKey = {theirs.keys.public}", f"Endpoint = {theirs.endpoint()}"]
    lines.append(f"AllowedIPs = {theirs.allowed_ips}")
    path = LOGS / f"{ours.interface}.conf"
    path.touch(0o600)
    path.write_text("\n".join(lines) + "\n")
    return str(path)
