"""The behaviour of `make static-sdk` with no official SDK, with a wrong one, with two, with one.

The official SDK itself is not used. A stand-in has its name and its triple, but contains our own
sysroot without libsodium, and Embedded Swift. This shows that the script finds the SDK, that the
importer finds libsodium's headers and the linker its library, and that the result is checked and
run. It does not show that the official SDK's modules and libc build this package.
"""

import json
import pathlib
import re
import shutil
import tempfile

from harness.command import CheckError, attempt, output_of, run_checks
from harness.settings import REPOSITORY

TRIPLE = "aarch64-swift-linux-musl"
SCRIPT = "Toolchain/static-sdk"
SCRATCH = ".build-static-sdk-aarch64"


def swift_version() -> str:
    return re.search(r"Swift version ([0-9.]+)", output_of("swift", "--version"))[1].rstrip(".")


class StandIns:
    """A folder of SDKs with the official ones' names."""

    def __init__(self, folder: pathlib.Path):
        self.folder = folder

    def add(self, version: str) -> pathlib.Path:
        """An SDK for that release of Swift; the folder of its triple."""
        name = f"swift-{version}-RELEASE_static-linux-0.1.0"
        bundle = self.folder / f"{name}.artifactbundle"
        place = bundle / TRIPLE
        place.mkdir(parents=True)
        variant = {"type": "swiftSDK", "version": "0.1.0", "variants": [{"path": TRIPLE}]}
        description = {"sdkRootPath": "sysroot", "toolsetPaths": ["toolset.json"]}
        for path, content in (
            (bundle / "info.json", {"schemaVersion": "1.0", "artifacts": {name: variant}}),
            (
                place / "swift-sdk.json",
                {"schemaVersion": "4.0", "targetTriples": {TRIPLE: description}},
            ),
            (place / "toolset.json", {"schemaVersion": "1.0"}),
        ):
            path.write_text(json.dumps(content))
        return place

    def remove(self, version: str) -> None:
        for bundle in self.folder.glob(f"swift-{version}-*"):
            shutil.rmtree(bundle)

    def expect(self, status: int, pattern: str, triple: str = TRIPLE) -> str:
        """The script's exit status, and a line of its output."""
        result = attempt(SCRIPT, triple, SDKS_PATH=str(self.folder))
        if result.returncode != status or not re.search(pattern, result.stdout, re.MULTILINE):
            raise CheckError(
                f"status {result.returncode} instead of {status}, or no line like '{pattern}' in:\n"
                + result.stdout
            )
        return ""

    # The checks

    def unknown_triple(self) -> str:
        return self.expect(2, "not 'armv6-swift-linux-musl'", "armv6-swift-linux-musl")

    def none_installed(self) -> str:
        """The output says how to get it."""
        return self.expect(
            77,
            r"^  swift sdk install https://download\.swift\.org/.*_static-linux-.*\.gz --checksum ",
        )

    def another_release(self) -> str:
        self.add("1.2.3")
        try:
            version = re.escape(swift_version())
            return self.expect(
                2,
                rf"^static-sdk: swift-1\.2\.3-RELEASE.* but the compiler is Swift {version}",
            )
        finally:
            self.remove("1.2.3")

    def several(self) -> str:
        for version in ("1.2.3", swift_version()):
            self.add(version)
        try:
            return self.expect(2, "^static-sdk: several")
        finally:
            for version in ("1.2.3", swift_version()):
                self.remove(version)

    def one(self) -> str:
        """It builds a static program, which passes its selftest."""
        place = self.add(swift_version())
        output_of("Toolchain/make-sdk", "aarch64")
        self.retarget(REPOSITORY / "build" / "sdk" / "culvert.artifactbundle" / "aarch64", place)
        try:
            return self.expect(
                0,
                rf"^build/{TRIPLE}/culvert: [0-9]* bytes, static; selftest: digest [0-9a-f]{{16}}",
            )
        finally:
            shutil.rmtree(REPOSITORY / "build" / TRIPLE, ignore_errors=True)
            shutil.rmtree(REPOSITORY / SCRATCH, ignore_errors=True)

    def retarget(self, ours: pathlib.Path, place: pathlib.Path) -> None:
        """Our SDK without libsodium, for the official triple: the last -target counts."""
        shutil.copytree(ours / "sysroot", place / "sysroot", symlinks=True)
        (place / "sysroot/usr/lib/libsodium.a").unlink()
        (place / "sysroot/usr/include/sodium.h").unlink()
        shutil.rmtree(place / "sysroot/usr/include/sodium")
        sdk = json.loads((ours / "swift-sdk.json").read_text())
        (embedded,) = sdk["targetTriples"]
        toolset = json.loads((ours / "toolset.json").read_text())
        toolset["swiftCompiler"]["extraCLIOptions"][:0] = ["-target", embedded]
        (place / "toolset.json").write_text(json.dumps(toolset))


def main(arguments: list[str]) -> int:
    with tempfile.TemporaryDirectory() as folder:
        sdks = StandIns(pathlib.Path(folder))
        return run_checks(
            arguments,
            __doc__.splitlines()[0],
            {
                "unknown-triple": sdks.unknown_triple,
                "none-installed": sdks.none_installed,
                "another-release": sdks.another_release,
                "several": sdks.several,
                "one": sdks.one,
            },
        )
