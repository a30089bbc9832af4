"""Which programs the tests run with."""

import dataclasses
import pathlib

from .program import Program

REPOSITORY = pathlib.Path(__file__).resolve().parents[3]
PEERS = REPOSITORY / "build" / "peers"
NEWEST = PEERS / "wireguard-go-newest"
DEBIAN12 = PEERS / "wireguard-go-debian12"


@dataclasses.dataclass
class Settings:
    """Set once by the runner, before any test is made."""

    program: Program
    peer: Program
    # Run also what only Culvert is expected to do, to see where another program differs.
    strict: bool = False
