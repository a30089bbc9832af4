"""The WireGuard programs that the tests run: Culvert, or one that it replaces."""

import argparse
import dataclasses
import os
import pathlib
import shutil
import subprocess

PLACE = "{}"  # the place of the interface's name in a custom command line


class Program:
    """A program started as `PROGRAM [-f] INTERFACE`, with further arguments in between.

    If `arguments` contain "{}", the interface's name replaces it, and nothing is appended.
    `lacks` names features that the program's system does not have ("fwmark"), with the reason.
    """

    def __init__(
        self,
        path: str | pathlib.Path,
        arguments: tuple[str, ...] = (),
        name: str = "",
        lacks: dict[str, str] | None = None,
    ):
        self.path = pathlib.Path(path).resolve()
        if not os.access(self.path, os.X_OK) or not self.path.is_file():
            raise FileNotFoundError(f"no program at {path}")
        self.arguments = arguments
        self.name = name or self.path.name
        self.lacks = lacks or {}
        self.version = self.ask_version()
        self.is_culvert = self.version.startswith("culvert ")

    @property
    def is_static(self) -> bool:
        """Whether it runs without a dynamic linker, whose path the first page would contain."""
        with self.path.open("rb") as file:
            return b"/ld-linux" not in file.read(4096)

    @property
    def environment(self) -> dict[str, str]:
        """Asks for the foreground if a custom command line has no -f."""
        return {"WG_PROCESS_FOREGROUND": "1"} if PLACE in self.arguments else {}

    def ask_version(self) -> str:
        """The first line of `PROGRAM --version`.

        If a program takes the word for an interface's name, the invalid descriptor ends it before
        it creates one.
        """
        environment = dict(os.environ, WG_TUN_FD="none", WG_PROCESS_FOREGROUND="1")
        try:
            result = subprocess.run(
                [str(self.path), "--version"],
                env=environment,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=5,
            )
        except subprocess.TimeoutExpired:
            return ""
        return result.stdout.partition("\n")[0]

    def command(self, interface: str, foreground: bool = True, profile: str = "") -> list[str]:
        """The command line; a profile is only passed to Culvert."""
        options = ["--profile", profile] if profile and self.is_culvert else []
        if PLACE in self.arguments:
            words = [interface if word == PLACE else word for word in self.arguments]
            return [str(self.path), *options, *words]
        options += [*self.arguments, *(["-f"] if foreground else [])]
        return [str(self.path), *options, interface]


# Which programs the tests run with.

REPOSITORY = pathlib.Path(__file__).resolve().parents[3]
PEERS = REPOSITORY / "build" / "peers"
NEWEST = PEERS / "wireguard-go-newest"
CULVERT = os.environ.get("CULVERT") or str(REPOSITORY / ".build" / "release" / "culvert")
# The tools that the tests use, and the Debian packages that contain them.
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
    # Also run the tests that only Culvert must pass, to see how other programs differ.
    strict: bool = False


def missing_tools() -> str:
    """What to install before anything can run; empty if nothing is missing."""
    packages = sorted({package for tool, package in TOOLS.items() if not shutil.which(tool)})
    return f"install {' '.join(packages)}" if packages else ""


def check_programs(parser: argparse.ArgumentParser, *paths: str | pathlib.Path) -> None:
    """Exit with the parser's usage and a hint if a program does not exist."""
    for path in paths:
        if not os.access(path, os.X_OK):
            hint = "; `make peers` fetches it" if PEERS in pathlib.Path(path).parents else ""
            parser.error(f"no program at {path}{hint}")
