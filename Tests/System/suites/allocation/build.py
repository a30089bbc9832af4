"""Builds the programs that count allocations: interposer, door program, static binary."""

import os
import pathlib
import shutil
import subprocess

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parents[3]
OUTPUT = ROOT / "build" / "allocation"
SOURCE = HERE / "interposer.c"
DOORS = (
    *("malloc", "calloc", "realloc", "free", "posix_memalign", "aligned_alloc"),
    *("__libc_malloc", "__libc_calloc"),
)
# One module of core and program, as in Tests/Fuzz/run.
SWIFT = ["-wmo", "-O", "-swift-version", "6", "-enable-upcoming-feature", "ExistentialAny"]
SWIFT += ["-package-name", "culvert"]


class BuildError(Exception):
    """A compiler failed; the text is its output."""


def call(*command: str | pathlib.Path) -> str:
    result = subprocess.run(
        [str(word) for word in command],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        stdin=subprocess.DEVNULL,
        text=True,
    )
    if result.returncode != 0:
        raise BuildError(f"{' '.join(map(str, command[:3]))} ...\n{result.stdout}")
    return result.stdout


def clang() -> pathlib.Path:
    """The Swift toolchain's own clang, which is installed wherever swiftc is."""
    swiftc = pathlib.Path(os.path.realpath(shutil.which("swiftc") or "swiftc"))
    return swiftc.parent / "clang"


def core() -> list[pathlib.Path]:
    return sorted((ROOT / "Sources" / "Culvert").rglob("*.swift"))


def preload() -> pathlib.Path:
    """The library that counts the calls of a dynamically linked program."""
    OUTPUT.mkdir(parents=True, exist_ok=True)
    target = OUTPUT / "interposer.so"
    call(clang(), "-O2", "-Wall", "-Werror", "-shared", "-fPIC", SOURCE, "-o", target)
    return target


def door_program() -> pathlib.Path:
    """The door worlds with the interposer linked in."""
    OUTPUT.mkdir(parents=True, exist_ok=True)
    target, object_file = OUTPUT / "door", OUTPUT / "interposer.o"
    call(clang(), "-O2", "-Wall", "-Werror", "-c", SOURCE, "-o", object_file)
    folder = ROOT / "Tests" / "Unit" / "CulvertTests" / "Door"
    worlds = [path for path in sorted(folder.glob("*.swift")) if path.stem != "DoorTests"]
    call(
        "swiftc",
        *(*SWIFT, "-parse-as-library", "-suppress-warnings", "-module-name", "Culvert"),
        *("-D", "ONE_MODULE", "-I", "Sources/CSodium"),
        *(*core(), *worlds, HERE / "DoorCount.swift", object_file),
        *("-lsodium", "-use-ld=lld", "-o", target),
    )
    return target


def static_proof() -> None:
    """With -no-allocations the compiler refuses any code that allocates."""
    OUTPUT.mkdir(parents=True, exist_ok=True)
    call(
        "swiftc",
        *("-c", "-parse-as-library", *SWIFT, "-module-name", "Culvert"),
        *("-enable-experimental-feature", "Embedded", "-Xfrontend", "-no-allocations"),
        *("-I", "Sources/CSodium", *core(), "-o", OUTPUT / "no-allocations.o"),
    )


def counted_static(board: str) -> pathlib.Path:
    """The shipped binary again, with the linker wrapping every allocator by the interposer."""
    OUTPUT.mkdir(parents=True, exist_ok=True)
    bundle = ROOT / "build" / "sdk" / "culvert.artifactbundle"
    sysroot = bundle / board / "sysroot"
    if not sysroot.exists():
        raise BuildError(f"no SDK for {board}; Toolchain/build-static {board} makes it")
    object_file = OUTPUT / "wrapped.o"
    call(
        *(clang(), f"--target={board}-linux-musl", f"--sysroot={sysroot}", "-O2", "-fPIC"),
        *("-Wall", "-Werror", "-DWRAPPED", "-c", SOURCE, "-o", object_file),
    )
    scratch = ROOT / f".build-counted-{board}"
    links = [word for name in DOORS for word in ("-Xlinker", f"--wrap={name}")]
    call(
        *("swift", "build", "--swift-sdks-path", "build/sdk", "--swift-sdk", f"culvert-{board}"),
        *("--scratch-path", scratch, "-c", "release", "--product", "culvert"),
        *("-Xswiftc", "-O", *links, "-Xlinker", object_file),
    )
    target = OUTPUT / f"culvert-{board}"
    shutil.copy2(next(scratch.glob("*/release/culvert")), target)
    return target
