"""The parts of `make test` and of `make test-rest`; `make test-all` runs both."""

import argparse
import fnmatch

from suites.plan.schedule import Lane, Part, Schedule

STATIC, ORDINARY = "build/x86_64/culvert", "build/ordinary/culvert"
BOARDS = ("armv7", "aarch64", "armv6", "riscv64")
# The board that has a real tunnel in `make test`: 32 bits, and NEON.
TUNNEL_BOARD = "armv7"
RUN = "Tests/System/run"


def make(*targets: str) -> tuple[str, ...]:
    return ("make", *targets)


def test_parts() -> list[Part]:
    """Every kind of test, in a few minutes."""
    return [
        Part("static build", make("static", "size"), Lane.FIRST),
        Part("peers", make("peers"), Lane.NETWORK),
        Part("requirements", make("requirements")),
        Part("style", make("lint")),
        Part("layers", make("layers")),
        Part("unit tests", make("unit")),
        Part(
            "interoperability",
            (RUN, "interop", "--program", STATIC, "-j", "16", "--alone", "without"),
            Lane.NETWORK,
            ("static build", "peers"),
            width=2,
        ),
        *(board_build(board) for board in BOARDS),
        Part(
            f"{TUNNEL_BOARD}, tunnels",
            (RUN, "boards", "--boards", TUNNEL_BOARD),
            Lane.NETWORK,
            (f"{TUNNEL_BOARD}, build", "static build", "peers"),
        ),
        *(digest(board) for board in BOARDS if board != TUNNEL_BOARD),
        Part(
            "allocation, in process",
            (RUN, "allocation", "--only", "proof", "--only", "door", "--datagrams", "200000"),
            needs=("static build",),
        ),
        Part(
            "allocation, in tunnels",
            (
                *(RUN, "allocation", "--only", "shipped", "--only", "nested-shipped"),
                *("--packets", "200000"),
            ),
            Lane.NETWORK,
            ("static build", "peers"),
        ),
    ]


def board_build(board: str) -> Part:
    return Part(f"{board}, build", make(board, f"size-{board}"))


def digest(board: str) -> Part:
    return Part(
        f"{board}, digest",
        (RUN, "boards", "--boards", board, "--digests"),
        needs=(f"{board}, build", "static build", "peers"),
    )


def rest_parts() -> list[Part]:
    """The parts that `make test` leaves out; they use the builds of `make test`."""
    ordinary = ("ordinary build",)
    return [
        Part("ordinary build", make("build"), Lane.FIRST),
        Part("boards, build", make("size-boards"), Lane.FIRST),
        Part("peers", make("peers"), Lane.NETWORK),
        Part(
            "interoperability, ordinary build",
            (RUN, "interop", "--program", ORDINARY, "-j", "16", "--alone", "without"),
            Lane.NETWORK,
            (*ordinary, "peers"),
            width=2,
        ),
        Part(
            "boards, tunnels",
            (RUN, "boards"),
            Lane.NETWORK,
            ("boards, build", "peers"),
        ),
        Part("packages", (RUN, "packages"), Lane.NETWORK, ("boards, build",)),
        Part(
            "allocation, full count",
            (RUN, "allocation", "--ordinary", ORDINARY),
            Lane.NETWORK,
            (*ordinary, "boards, build", "peers"),
        ),
        Part("address sanitizer", (RUN, "sanitize", "-k", "address")),
        Part("thread sanitizer", (RUN, "sanitize", "-k", "thread")),
        Part("fuzzing", make("fuzz")),
        Part("a million streams", make("models")),
        Part("simulation, 10,000 seeds", make("simulate")),
        Part("embedding", make("embedding")),
        Part("official SDK, with a stand-in", make("test-static-sdk"), needs=("boards, build",)),
        Part(
            "program under the thread sanitizer",
            (RUN, "sanitize", "-k", "workers"),
            Lane.ALONE,
            ("peers",),
        ),  # fmt: skip
        Part(
            "interoperability, alone",
            (RUN, "interop", "--program", STATIC, "--alone", "only"),
            Lane.ALONE,
            ("boards, build", "peers"),
        ),
        Part("single operations", make("microbench"), Lane.ALONE),
    ]


PLANS = {
    "test": test_parts,
    "test-rest": rest_parts,
}


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("plan", choices=PLANS, help="the target of make")
    parser.add_argument(
        "-k",
        dest="patterns",
        action="append",
        help="only parts whose name matches (*, ?), and their needs; may be repeated",
    )
    parser.add_argument("--list", action="store_true", help="print the names only")
    options = parser.parse_args(arguments)
    parts = PLANS[options.plan]()
    if options.patterns:
        parts = wanted(parts, options.patterns)
    if not parts:
        parser.error(f"no part matches {' or '.join(options.patterns)}")
    if options.list:
        print("\n".join(part.name for part in parts))
        return 0
    return Schedule(options.plan, parts).run()


def wanted(parts: list[Part], patterns: list[str]) -> list[Part]:
    """The parts that match a pattern, and the parts that they need."""
    names = {
        part.name
        for part in parts
        if any(fnmatch.fnmatch(part.name, f"*{pattern}*") for pattern in patterns)
    }
    for part in reversed(parts):
        if part.name in names:
            names.update(part.needs)
    return [part for part in parts if part.name in names]
