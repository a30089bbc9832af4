"""What a package contains: read by make-deb, make-tarball and flash."""

import dataclasses
import datetime
import os
import pathlib
import re
import subprocess
import sys
from collections.abc import Callable

PACKAGING = pathlib.Path(__file__).resolve().parent
PACKAGE = PACKAGING / "package"
ROOT = PACKAGING.parent.parent
BOARDS = ("aarch64", "armv7", "armv6", "riscv64", "x86_64")
VERSION = re.compile(r'var version: StaticString { "([^"]*)" }')


class PackagingError(Exception):
    """No package can be made; the message says what to do."""


@dataclasses.dataclass(frozen=True)
class Item:
    """One line of package/files."""

    mode: int
    file: str
    target: str
    systems: tuple[str, ...]


def items(system: str) -> list[Item]:
    """The files that are installed on this kind of system, in the order of the list."""
    found = []
    for line in (PACKAGE / "files").read_text().splitlines():
        words = line.split()
        if len(words) == 4 and not line.startswith("#"):
            mode, file, target, systems = words
            found.append(Item(int(mode, 8), file, target, tuple(systems.split(","))))
    return [item for item in found if system in item.systems]


def program_version() -> str:
    """The version that the program prints."""
    for path in sorted((ROOT / "Sources/culvert").glob("*.swift")):
        if match := VERSION.search(path.read_text()):
            return match[1]
    raise PackagingError("no version in Sources/culvert")


def last_commit(form: str) -> str:
    command = ("git", "-C", str(ROOT), "log", "-1", f"--format={form}")
    result = subprocess.run(command, capture_output=True, text=True)
    return result.stdout.strip() if result.returncode == 0 else ""


class Board:
    """A board's program, and the version and date that its packages get.

    VERSION in the environment replaces the program's own, to test an upgrade.
    SOURCE_DATE_EPOCH replaces the commit's date.
    """

    def __init__(self, name: str):
        if name not in BOARDS:
            raise PackagingError(f"no board '{name}'; there is: {' '.join(BOARDS)}")
        self.name = name
        self.program = ROOT / "build" / name / "culvert"
        self.version = os.environ.get("VERSION") or program_version()
        # The same commit gives the same bytes, so no file is newer than the commit.
        epoch = os.environ.get("SOURCE_DATE_EPOCH") or last_commit("%ct")
        if not epoch.isdigit():
            raise PackagingError("no commit to take the date from; set SOURCE_DATE_EPOCH")
        self.epoch = int(epoch)
        self.date = datetime.datetime.fromtimestamp(self.epoch, datetime.UTC)

    def need_program(self) -> None:
        if not self.program.is_file():
            raise PackagingError(
                f"build/{self.name}/culvert is missing; run make {self.name}"
            )

    def content(self, file: str) -> bytes:
        """A file of the list, as it is installed."""
        if file == "culvert":
            return self.program.read_bytes()
        if file == "copyright":
            return (PACKAGE / "debian/copyright").read_bytes()
        if file == "culvert.8":
            return self.manual().encode()
        return (PACKAGE / file).read_bytes()

    def manual(self) -> str:
        """The man page with date and version."""
        text = (PACKAGE / "culvert.8").read_text()
        text = re.sub(r'(?m)^\.\\" DATE.*\n', "", text)
        day = f"{self.date:%B} {self.date.day}, {self.date.year}"
        text = re.sub(r"(?m)^\.Dd DATE", f".Dd {day}", text)
        return re.sub(r"(?m)^\.Os .*", f'.Os "Culvert {self.version}"', text)


def run(*command: str, **options) -> bytes:
    """The standard output of a command that has to succeed."""
    environment = os.environ | options.pop("env", {}) | {"LC_ALL": "C"}
    try:
        return subprocess.run(
            command, check=True, stdout=subprocess.PIPE, env=environment, **options
        ).stdout
    except FileNotFoundError:
        raise PackagingError(f"missing: {command[0]}; run make deps") from None
    except subprocess.CalledProcessError as error:
        raise PackagingError(f"{command[0]} ended with status {error.returncode}") from None


def compressed(content: bytes) -> bytes:
    # gzip itself, because the output of zlib changes from version to version.
    return run("gzip", "-9n", input=content)


def run_main(body: Callable[[list[str]], None]) -> None:
    """Runs a script's body with its arguments; an error is one line and exit status 1."""
    os.umask(0o022)
    try:
        body(sys.argv[1:])
    except PackagingError as error:
        print(f"{pathlib.Path(sys.argv[0]).name}: {error}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)
