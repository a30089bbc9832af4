"""Builds programs from the files of the core and those of a test, compiled as one module.

Within one module, tests reach internals without @testable, and the compiler inlines as in the
product.
"""

import dataclasses
import hashlib
import pathlib
import subprocess
import sys
from collections.abc import Iterable, Sequence

ROOT = pathlib.Path(__file__).resolve().parents[1]
CORE = ROOT / "Sources" / "Culvert"
UNIT = ROOT / "Tests" / "Unit" / "CulvertTests"
SODIUM = ROOT / "Sources" / "CSodium"
FLAGS = (
    *("-O", "-wmo", "-swift-version", "6", "-enable-upcoming-feature", "ExistentialAny"),
    *("-module-name", "Culvert", "-package-name", "culvert", "-use-ld=lld"),
)


class BuildError(Exception):
    """A compiler failed; the text is its output."""


def call(*command: str | pathlib.Path) -> str:
    """Run a command in the checkout, and return its output and errors together.

    Raises BuildError.
    """
    result = subprocess.run(
        [str(word) for word in command],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        stdin=subprocess.DEVNULL,
        text=True,
    )
    if result.returncode != 0:
        shown = " ".join(str(word) for word in command[:3])
        raise BuildError(f"{shown} ... failed\n{result.stdout}")
    return result.stdout


def swift_files(*places: pathlib.Path) -> list[pathlib.Path]:
    """The Swift files among and below these places, except unit test suites."""
    found: set[pathlib.Path] = set()
    for place in places:
        found.update([place] if place.is_file() else place.rglob("*.swift"))
    return sorted(path for path in found if not path.stem.endswith("Tests"))


@dataclasses.dataclass(frozen=True)
class SwiftProgram:
    """A program, its source files, and compiler options in addition to `FLAGS`."""

    path: pathlib.Path
    sources: Sequence[pathlib.Path]
    options: Sequence[str | pathlib.Path] = ()
    has_sodium: bool = True

    def build(self) -> None:
        """Compile, unless compiler, options and sources are those of the last build.

        Raises BuildError.
        """
        command: list[str | pathlib.Path] = ["swiftc", *FLAGS, *self.options, *self.sources]
        if self.has_sodium:
            command += ["-I", SODIUM.relative_to(ROOT), "-lsodium"]
        command += ["-o", self.path]
        stamp_file = self.path.with_name(self.path.name + ".stamp")
        stamp = self._stamp(command)
        if self.path.exists() and stamp_file.exists() and stamp_file.read_text() == stamp:
            return
        print(f"building {self.path.relative_to(ROOT)}", flush=True)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        stamp_file.unlink(missing_ok=True)
        call(*command)
        stamp_file.write_text(stamp)

    def _stamp(self, command: Iterable[str | pathlib.Path]) -> str:
        words = [str(word) for word in command]
        digest = hashlib.sha256(repr((words, call("swiftc", "--version"))).encode())
        inputs = [ROOT / word for word in words if word.endswith((".o", ".swift"))]
        for path in inputs + sorted(SODIUM.iterdir()):
            digest.update(path.read_bytes())
        return digest.hexdigest()


def build_or_exit(program: SwiftProgram) -> None:
    """Build it; if that fails, print why and exit with status 2."""
    try:
        program.build()
    except BuildError as error:
        print(error, file=sys.stderr)
        sys.exit(2)
