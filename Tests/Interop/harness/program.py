"""A WireGuard program: Culvert, or one that it stands in for."""

import os
import pathlib
import subprocess


class Program:
    """A program started as `PROGRAM [-f] INTERFACE`."""

    def __init__(self, path: str | pathlib.Path):
        self.path = pathlib.Path(path).resolve()
        if not os.access(self.path, os.X_OK):
            raise FileNotFoundError(f"no program at {path}")
        self.version = self.ask_version()
        self.is_culvert = self.version.startswith("culvert ")

    @property
    def name(self) -> str:
        return self.path.name

    @property
    def is_static(self) -> bool:
        """Whether it runs without a dynamic linker, whose path stands in the first page."""
        with self.path.open("rb") as file:
            return b"/ld-linux" not in file.read(4096)

    def ask_version(self) -> str:
        """The first line of `PROGRAM version`.

        wireguard-go takes the word for an interface name. The bad descriptor ends it before it
        has made one, and Culvert's `version` does not look at it.
        """
        environment = dict(os.environ, WG_TUN_FD="none", WG_PROCESS_FOREGROUND="1")
        try:
            result = subprocess.run(
                [str(self.path), "version"],
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
        """The command line; a profile is for Culvert alone and left out for others."""
        options = ["--profile", profile] if profile and self.is_culvert else []
        return [str(self.path), *options, *(["-f"] if foreground else []), interface]
