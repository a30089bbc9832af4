"""The boards, and how this machine runs their programs."""

import dataclasses
import pathlib
import shlex
import shutil
import sys

from harness.settings import REPOSITORY, Program

BUILD = REPOSITORY / "build"
NATIVE = BUILD / "x86_64" / "culvert"
TRACED = pathlib.Path(__file__).with_name("traced.py")
MARK = "fwmark"


@dataclasses.dataclass(frozen=True)
class Board:
    """A board; scripts start the emulator with its program, build/NAME/culvert."""

    name: str
    emulator: str
    cpu: str = ""
    # Bytes of a counter in the program's heap: see guest.py.
    word_size: int = 8

    @property
    def path(self) -> pathlib.Path:
        return BUILD / self.name / "culvert"

    @property
    def folder(self) -> pathlib.Path:
        return BUILD / self.name / "emulated"

    @property
    def command(self) -> list[str]:
        emulator = shutil.which(self.emulator) or self.emulator
        return [emulator, *(["-cpu", self.cpu] if self.cpu else [])]

    @property
    def missing(self) -> str:
        """What this machine lacks to run the board; empty if it lacks nothing."""
        return "" if shutil.which(self.emulator) else "install qemu-user-static"

    def write_scripts(self) -> None:
        """`culvert` runs the program; `traced` also logs its system calls to $TRACE."""
        trace = [sys.executable, "-B", str(TRACED), *self.command]
        self.folder.mkdir(exist_ok=True)
        for name, command in (("culvert", self.command), ("traced", trace)):
            words = shlex.join([*command, str(self.path)])
            script = self.folder / name
            script.write_text(f'#!/bin/sh\nexec {words} "$@"\n')
            script.chmod(0o755)

    def program(self, lacks: dict[str, str] | None = None, script: str = "culvert") -> Program:
        return Program(self.folder / script, name=f"culvert-{self.name}", lacks=lacks)


BOARDS = {
    board.name: board
    for board in (
        Board("aarch64", "qemu-aarch64-static", "cortex-a53"),
        Board("armv7", "qemu-arm-static", "cortex-a7", word_size=4),
        Board("armv6", "qemu-arm-static", "arm1176", word_size=4),
        Board("riscv64", "qemu-riscv64-static"),
    )
}
