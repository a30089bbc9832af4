"""Builds programs of the core: its files and those of a test, compiled as one module.

One module needs no @testable to reach internals, and inlines them as the product does.
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
    """Run a command in the checkout; what it prints, both ways."""
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
    """The Swift files among and below these, without suites of unit tests."""
    found: set[pathlib.Path] = set()
    for place in places:
        found.update([place] if place.is_file() else place.rglob("*.swift"))
    return sorted(path for path in found if not path.stem.endswith("Tests"))


@dataclasses.dataclass(frozen=True)
class SwiftProgram:
    """A program, the files that it is made of, and what the compiler is told beside `FLAGS`."""

    path: pathlib.Path
    sources: Sequence[pathlib.Path]
    options: Sequence[str | pathlib.Path] = ()
    has_sodium: bool = True

    def build(self) -> None:
        """Compile, unless neither compiler, options nor sources have changed since.

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
