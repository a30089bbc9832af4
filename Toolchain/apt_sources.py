#!/usr/bin/python3
"""Debian's archive as apt is configured to reach it on this machine.

The project names no mirror: apt's own sources, proxies, credentials and keys are used, with package
lists and caches of our own, so that the system's are not changed. Neither root nor an earlier
`apt-get update` is needed.

    apt_sources.py archives
        print the addresses of the configured Debian archives, one per line, for debootstrap
    apt_sources.py configure FOLDER SUITE... [--architecture NAME]
        fetch the package lists of these suites into FOLDER, for `apt-get -c FOLDER/apt.conf ...`
"""

import argparse
import dataclasses
import os
import pathlib
import re
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Iterator

# Not on PATH by design; it is part of apt.
HELPER = "/usr/lib/apt/apt-helper"
# No package is installed, and there are no preferences and no hooks. apt reads the file given by -c
# after those of the system, so this one decides.
CONFIGURATION = """\
#clear APT::Architectures;
#clear APT::Update::Pre-Invoke;
#clear APT::Update::Post-Invoke;
#clear APT::Update::Post-Invoke-Success;
#clear Acquire::Languages;
#clear DPkg::Post-Invoke;
APT::Architecture "{architecture}";
APT::Architectures {{ "{architecture}"; }};
APT::Install-Recommends "false";
APT::Sandbox::User "root";
APT::Update::Error-Mode "any";
Acquire::Languages "none";
Dir::Etc::SourceList "{folder}/none";
Dir::Etc::SourceParts "{folder}/sources";
Dir::Etc::Preferences "{folder}/none";
Dir::Etc::PreferencesParts "{folder}/preferences";
Dir::State "{folder}";
Dir::State::Lists "{folder}/lists";
Dir::State::Status "{folder}/status";
Dir::Cache "{folder}/cache";
Dir::Cache::Archives "{folder}/cache/archives";
Dir::Cache::PkgCache "pkgcache.bin";
Dir::Cache::SrcPkgCache "srcpkgcache.bin";
"""
RELEASES = {
    *("bullseye", "bookworm", "trixie", "forky", "duke", "sid"),
    *("oldoldstable", "oldstable", "stable", "testing", "unstable", "experimental"),
}
# Fields that select parts of an archive are dropped; the others say how it is trusted.
SELECTING = {
    *("types", "uris", "suites", "components", "enabled", "architectures", "languages", "targets"),
    *("arch", "lang", "target"),
}


class AptError(Exception):
    """The configured sources lack something; the message says what."""


@dataclasses.dataclass(frozen=True)
class Archive:
    """One configured archive: its address in apt's configuration, and how it is trusted."""

    uri: str
    is_security: bool
    options: tuple[tuple[str, str], ...]

    @property
    def order(self) -> tuple[bool, bool]:
        """Archives with another key or address sort last: they may be of other projects."""
        key = dict(self.options).get("signed-by", "")
        has_own_key = key.startswith("/") and "debian-archive" not in key
        return has_own_key, not self.uri.endswith("/debian")

    def entry(self, types: str, suites: list[str]) -> str:
        """A stanza of a .sources file."""
        fields = [("Types", types), ("URIs", self.uri), ("Suites", " ".join(suites))]
        # Only lists of packages: no icons, no indexes of commands or files.
        fields += [("Components", "main"), ("Targets", "Packages Sources")]
        fields += [(name.title(), value) for name, value in self.options]
        return "".join(f"{name}: {value}\n" for name, value in fields) + "\n"


def run(*command: str, folder: pathlib.Path | None = None) -> str:
    """The standard output of a command, or an AptError with its last complaint."""
    environment = os.environ | {"LC_ALL": "C"}
    result = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    if result.returncode != 0:
        complaints = [line for line in result.stderr.splitlines() if line.startswith("E:")]
        raise AptError((complaints or [result.stderr.strip() or f"{command[0]} failed"])[0])
    return result.stdout


def stanzas(text: str) -> Iterator[dict[str, str]]:
    """The stanzas of a .sources file, with lower-case names."""
    for block in re.split(r"\n\s*\n", re.sub(r"(?m)^#.*\n?", "", text)):
        fields: dict[str, str] = {}
        name = ""
        for line in block.splitlines():
            if line[:1] in " \t" and name:
                fields[name] += "\n" + line
            elif ":" in line:
                name, value = line.split(":", 1)
                name = name.strip().lower()
                fields[name] = value.strip()
        if fields.get("enabled", "yes").lower() not in ("no", "false", "0", "off", "without"):
            yield fields


def lines(text: str) -> Iterator[dict[str, str]]:
    """The lines of a .list file, as if they were stanzas."""
    pattern = re.compile(r"^\s*(deb|deb-src)\s+(?:\[([^]]*)\]\s*)?(\S+)\s+(\S+)([^#]*)")
    for line in text.splitlines():
        if match := pattern.match(line):
            types, options, uri, suite, components = match.groups()
            words = (word.split("=", 1) for word in (options or "").split() if "=" in word)
            fields = {name.lower(): value.replace(",", " ") for name, value in words}
            yield fields | {
                "types": types,
                "uris": uri,
                "suites": suite,
                "components": components.strip(),
            }


def configured_files() -> list[pathlib.Path]:
    """apt's files of sources, in the order in which it reads them."""
    names = ("Dir::Etc::SourceList/f", "Dir::Etc::SourceParts/d")
    text = run("apt-config", "shell", *(word for it in zip("FD", names) for word in it))
    paths = dict(word.split("=", 1) for word in shlex.split(text))
    found = [pathlib.Path(paths["F"])]
    parts = pathlib.Path(paths["D"])
    if parts.is_dir():
        found += sorted(it for it in parts.iterdir() if it.suffix in (".list", ".sources"))
    return [path for path in found if path.is_file()]


def configured() -> list[Archive]:
    """The Debian archives that apt is configured with, the most likely one first."""
    found: dict[tuple[str, bool], Archive] = {}
    for path in configured_files():
        read = stanzas if path.suffix == ".sources" else lines
        for fields in read(path.read_text(errors="replace")):
            if "main" not in fields.get("components", "").split():
                continue
            options = tuple((name, it) for name, it in fields.items() if name not in SELECTING)
            for suite in fields.get("suites", "").split():
                release, _, kind = suite.partition("-")
                if release not in RELEASES:
                    continue
                for uri in fields.get("uris", "").split():
                    archive = Archive(uri.rstrip("/"), kind == "security", options)
                    if not uri.startswith("cdrom:"):
                        found.setdefault((archive.uri, archive.is_security), archive)
    if not any(not it.is_security for it in found.values()):
        raise AptError("apt has no source of Debian's packages (a deb line with `main`)")
    return sorted(found.values(), key=lambda archive: archive.order)


def addresses(uri: str) -> list[str]:
    """The archives behind an address, which may be that of a list of mirrors."""
    if not uri.startswith("mirror"):
        return [uri]
    place = uri.removeprefix("mirror+") if "+" in uri else "http" + uri.removeprefix("mirror")
    if place.startswith("file:"):
        text = pathlib.Path("/" + place.removeprefix("file:").lstrip("/")).read_text()
    else:
        with tempfile.TemporaryDirectory() as folder:
            download(place, pathlib.Path(folder) / "mirrors")
            text = (pathlib.Path(folder) / "mirrors").read_text()
    words = (line.split() for line in text.splitlines() if not line.lstrip().startswith("#"))
    return [it[0].rstrip("/") for it in words if it]


def archives() -> list[str]:
    """The addresses below which `dists` and `pool` of Debian's main archive are."""
    found = []
    for archive in configured():
        if not archive.is_security:
            found += addresses(archive.uri)
    return list(dict.fromkeys(found))


def download(uri: str, target: pathlib.Path, sha256: str = "") -> None:
    """Fetch one file, through apt's transports and proxies and without a package list."""
    words = [f"SHA256:{sha256}"] if sha256 else []
    run(HELPER, "-qq", "-oAPT::Sandbox::User=root", "download-file", uri, str(target), *words)


class Apt:
    """An apt with package lists of its own, of these suites from the configured archives."""

    def __init__(self, folder: pathlib.Path, suites: list[str], architecture: str = ""):
        self.folder = folder.resolve()
        self.suites = suites
        for name in ("lists/partial", "cache/archives/partial", "preferences", "sources"):
            (self.folder / name).mkdir(parents=True, exist_ok=True)
        (self.folder / "status").touch()
        architecture = architecture or run("dpkg", "--print-architecture").strip()
        self.configuration = self.folder / "apt.conf"
        text = CONFIGURATION.format(folder=self.folder, architecture=architecture)
        self.configuration.write_text(text)

    def get(self, *words: str, folder: pathlib.Path | None = None) -> str:
        return run("apt-get", "-qq", "-c", str(self.configuration), *words, folder=folder)

    def cache(self, *words: str) -> str:
        return run("apt-cache", "-c", str(self.configuration), *words)

    def update(self, with_sources: bool = False) -> None:
        """Fetch the package lists, from the first configured archive that has these suites."""
        types = "deb deb-src" if with_sources else "deb"
        secured = [suite for suite in self.suites if suite.endswith("-security")]
        others = [suite for suite in self.suites if suite not in secured]
        known = configured()
        # If this machine is configured without security updates, do not use them here either.
        security = [it for it in known if it.is_security and secured][:1]
        failures = []
        for archive in known:
            if archive.is_security:
                continue
            text = archive.entry(types, others)
            text += "".join(it.entry(types, secured) for it in security)
            (self.folder / "sources/debian.sources").write_text(text)
            try:
                self.get("update")
                return
            except AptError as error:
                failures.append(f"{archive.uri}: {error}")
        raise AptError(f"no lists of {' '.join(self.suites)}: " + "; ".join(failures))

    def uris(self, *words: str) -> dict[str, str]:
        """File -> address of all that `apt-get WORD...` would fetch."""
        rows = (shlex.split(line) for line in self.get(*words, "--print-uris").splitlines())
        return {row[1]: row[0] for row in rows if len(row) > 2}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("archives", help="addresses of the configured Debian archives")
    configure = commands.add_parser("configure", help="a folder for `apt-get -c FOLDER/apt.conf`")
    configure.add_argument("folder", type=pathlib.Path)
    configure.add_argument("suites", nargs="+", metavar="SUITE")
    configure.add_argument("--architecture", default="")
    options = parser.parse_args()
    try:
        if options.command == "archives":
            print("\n".join(archives()))
        else:
            Apt(options.folder, options.suites, options.architecture).update()
    except AptError as error:
        print(f"apt_sources: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
