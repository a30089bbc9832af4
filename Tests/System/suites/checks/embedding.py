"""The program of docs/EMBEDDING.md, exactly as it is printed there.

Extracts its files (each code block whose first line is a comment with a file's name), builds them
in build/embedding as a package that depends on this one, runs the program, and compares what it
prints with what the document says it prints.
"""

import difflib
import re
import shutil

from harness.command import CheckError, output_of, run_checks
from harness.settings import REPOSITORY

DOCUMENT = REPOSITORY / "docs" / "EMBEDDING.md"
FOLDER = REPOSITORY / "build" / "embedding" / "program"
FILES = ("Package.swift", "Sources/echo/main.swift")
RUN = "$ swift run echo"
# The document cannot know where its reader has put this package.
DEPENDENCY = 'path: "../culvert"'
BLOCK = re.compile(r"^```[a-z]*\n(.*?)^```", re.MULTILINE | re.DOTALL)


def blocks() -> list[list[str]]:
    """The lines of each code block."""
    return [block.splitlines() for block in BLOCK.findall(DOCUMENT.read_text())]


def file_named(name: str) -> str:
    found = [block[1:] for block in blocks() if block[:1] == [f"// {name}"]]
    if len(found) != 1 or not found[0]:
        raise CheckError(f"{len(found)} blocks for {name}")
    return "\n".join(found[0]) + "\n"


def expected_output() -> list[str]:
    for block in blocks():
        if RUN in block and block[-1] != RUN:
            return block[block.index(RUN) + 1 :]
    raise CheckError("the document does not say what the program prints")


def embedding() -> str:
    # Files that the document no longer has would be compiled as well.
    shutil.rmtree(FOLDER / "Sources", ignore_errors=True)
    for name in FILES:
        text = file_named(name)
        if name == "Package.swift":
            if DEPENDENCY not in text:
                raise CheckError(f"Package.swift has no {DEPENDENCY}")
            text = text.replace(DEPENDENCY, f'path: "{REPOSITORY}"')
        path = FOLDER / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    output_of("swift", "build", "--package-path", FOLDER)
    program = FOLDER / ".build" / "debug" / "echo"
    printed = output_of("timeout", "60", program, SWIFT_BACKTRACE="enable=no").splitlines()
    expected = expected_output()
    if printed != expected:
        lines = difflib.unified_diff(expected, printed, "document", "program", lineterm="")
        raise CheckError("the program prints something else:\n" + "\n".join(lines))
    return "the program builds and prints what the document says"


def main(arguments: list[str]) -> int:
    return run_checks(arguments, __doc__.splitlines()[0], {"embedding": embedding})
