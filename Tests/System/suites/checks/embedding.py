"""The programs in the library's documentation, exactly as printed there.

`hello` is extracted from the article Embedding.md (each code block whose first line is a comment
with a file's name) and built in build/embedding as a package that depends on this one; two
instances of it communicate over UDP on loopback. `nested` is Examples/nested. Their output is
compared with the output in the documentation.
"""

import difflib
import os
import re
import shutil
import subprocess

from harness.command import CheckError, output_of, run_checks
from harness.settings import REPOSITORY

ARTICLE = REPOSITORY / "Sources" / "Culvert" / "Culvert.docc" / "Embedding.md"
NESTED = REPOSITORY / "Examples" / "nested"
OUTPUT = REPOSITORY / "build" / "embedding"
FILES = ("Package.swift", "Sources/hello/main.swift")
RUN = "$ swift run hello"
MOST_LINES = 79  # the documentation says: under 80
# The article does not know the location of this package.
DEPENDENCY = 'path: "../culvert"'
BLOCK = re.compile(r"^```[a-z]*\n(.*?)^```", re.MULTILINE | re.DOTALL)
# The key pairs of RFC 7748, section 6.1.
KEYS = (
    (
        "dwdtCnMYpX08FsFyUbJmRd9ML4frwJkqsXf7pR25LCo=",
        "hSDwCYkwp1R0i33ctD73Wg2/Og0mOBr066SpjqqbTmo=",
    ),
    (
        "XasIfmJKikt54X+Lg4AO5m87sSkmGLb9HC+LJ/+I4Os=",
        "3p7bfXt9wbTTW2HC7OQ1Nz+DQ8hbeGdNrfx+FG+IK08=",
    ),
)


def blocks() -> list[list[str]]:
    """The lines of each code block."""
    return [block.splitlines() for block in BLOCK.findall(ARTICLE.read_text())]


def file_named(name: str) -> str:
    found = [block[1:] for block in blocks() if block[:1] == [f"// {name}"]]
    if len(found) != 1 or not found[0]:
        raise CheckError(f"{len(found)} blocks for {name}")
    return "\n".join(found[0]) + "\n"


def expected_output() -> list[str]:
    for block in blocks():
        if block and block[0].startswith(RUN):
            return sorted(line for line in block if not line.startswith("$"))
    raise CheckError("the article does not say what the program prints")


def compare(name: str, expected: list[str], printed: list[str]) -> None:
    if printed != expected:
        lines = difflib.unified_diff(expected, printed, "documentation", "program", lineterm="")
        raise CheckError(f"{name} prints something else:\n" + "\n".join(lines))


def build(package: os.PathLike, name: str) -> os.PathLike:
    scratch = OUTPUT / f"build-{name}"
    output_of("swift", "build", "--package-path", package, "--scratch-path", scratch)
    return scratch / "debug" / name


def hello() -> str:
    folder = OUTPUT / "hello"
    # Files that the article no longer has would be compiled as well.
    shutil.rmtree(folder, ignore_errors=True)
    for name in FILES:
        text = file_named(name)
        if name == "Package.swift":
            if DEPENDENCY not in text:
                raise CheckError(f"Package.swift has no {DEPENDENCY}")
            text = text.replace(DEPENDENCY, f'path: "{REPOSITORY}"')
        elif text.count("\n") > MOST_LINES:
            raise CheckError(f"{name} has {text.count(chr(10))} lines, not up to {MOST_LINES}")
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    program = build(folder, "hello")
    commands = [
        ("timeout", "60", program, KEYS[own][0], KEYS[1 - own][1], str(own + 1)) for own in (0, 1)
    ]
    with subprocess.Popen(commands[0], stdout=subprocess.PIPE, text=True) as first:
        second = output_of(*commands[1], SWIFT_BACKTRACE="enable=no")
        printed, _ = first.communicate()
    if first.returncode:
        raise CheckError(f"the first instance failed with {first.returncode}")
    compare("hello", expected_output(), sorted((printed + second).splitlines()))
    return "two instances talk over UDP and print what the article says"


def nested() -> str:
    program = build(NESTED, "nested")
    printed = output_of("timeout", "60", program, SWIFT_BACKTRACE="enable=no").splitlines()
    compare("nested", (NESTED / "expected").read_text().splitlines(), printed)
    return "builds and prints what Examples/nested/expected says"


def main(arguments: list[str]) -> int:
    return run_checks(arguments, __doc__.splitlines()[0], {"hello": hello, "nested": nested})
