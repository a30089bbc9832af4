"""Which programs the tests run with."""

import argparse
import dataclasses
import os
import pathlib
import shutil

from .program import Program

REPOSITORY = pathlib.Path(__file__).resolve().parents[3]
PEERS = REPOSITORY / "build" / "peers"
NEWEST = PEERS / "wireguard-go-newest"
CULVERT = os.environ.get("CULVERT") or str(REPOSITORY / ".build" / "release" / "culvert")
# The tools that the tests use, and Debian's packages of them.
TOOLS = {
    "wg": "wireguard-tools",
    "wg-quick": "wireguard-tools",
    "ip": "iproute2",
    "ping": "iputils-ping",
    "iperf3": "iperf3",
    "nft": "nftables",
    "dnsmasq": "dnsmasq-base",
    "dig": "bind9-dnsutils",
}
DEBIAN12 = PEERS / "wireguard-go-debian12"


@dataclasses.dataclass
class Settings:
    """Set once by the runner, before any test is made."""

    program: Program
    peer: Program
    # Run also what only Culvert is expected to do, to see where another program differs.
    strict: bool = False


def missing_tools() -> str:
    """What to install before anything can run; empty when nothing is missing."""
    packages = sorted({package for tool, package in TOOLS.items() if not shutil.which(tool)})
    return f"install {' '.join(packages)}" if packages else ""


def check_programs(parser: argparse.ArgumentParser, *paths: str | pathlib.Path) -> None:
    """End with the parser's usage and a hint when a program is not there."""
    for path in paths:
        if not os.access(path, os.X_OK):
            hint = (
                "; Tests/Interop/fetch-peers gets it" if PEERS in pathlib.Path(path).parents else ""
            )
            parser.error(f"no program at {path}{hint}")
