"""Debian's archives as this machine's apt reaches them: its mirrors and its proxies.

No address is written here. `apt-get indextargets` names the archives that apt is configured with;
other suites are looked for in the same places.
"""

import pathlib
import subprocess
import typing

FILTERS = ("Created-By: Packages", "Origin: Debian")
KEYRING = pathlib.Path("/usr/share/keyrings/debian-archive-keyring.gpg")


class AptError(Exception):
    """apt failed, or has no archive of Debian; the text says which."""


class Archive(typing.NamedTuple):
    """An archive that apt is configured with, such as Debian's main one."""

    uri: str

    def entry(self, suite: str) -> str:
        """A line of sources.list for another suite of this archive."""
        signed = f"[signed-by={KEYRING}] " if KEYRING.exists() else ""
        return f"deb {signed}{self.uri} {suite} main\n"


def run(*command: str, cwd: pathlib.Path | None = None) -> str:
    """The standard output of a command, or an AptError with its error output."""
    result = subprocess.run(command, cwd=cwd, capture_output=True, text=True)
    if result.returncode != 0:
        raise AptError(f"{' '.join(command[:2])} failed:\n{result.stderr.strip()}")
    return result.stdout


def configured() -> list[tuple[Archive, str]]:
    """The archives of Debian that apt is configured with, each with one of its suites."""
    found = []
    for stanza in run("apt-get", "indextargets", *FILTERS).strip().split("\n\n"):
        fields = dict(line.partition(": ")[::2] for line in stanza.splitlines())
        if "Repo-URI" in fields:
            archive = Archive(fields["Repo-URI"])
            found.append((archive, fields["Release"]))
    return found


def archives() -> tuple[Archive, Archive | None]:
    """The main archive and that of security updates, if apt has one."""
    found = configured()
    if not found:
        # apt names no archive before its first update.
        run("apt-get", "-qq", "update")
        found = configured()
    security = [it for it, suite in found if suite.endswith("-security")]
    main = [it for it, suite in found if it not in security]
    if not main:
        raise AptError("apt has no archive of Debian; see sources.list(5)")
    return main[0], security[0] if security else None


class PrivateApt:
    """An apt with lists, cache and sources of its own in a folder; the system's stay untouched."""

    def __init__(self, root: pathlib.Path, entries: list[str]):
        self.root = root
        for folder in ("lists/partial", "cache/archives/partial", "parts"):
            (root / folder).mkdir(parents=True, exist_ok=True)
        (root / "sources.list").write_text("".join(entries))
        (root / "status").touch()
        self.options = [
            f"-oDir::Etc::SourceList={root}/sources.list",
            f"-oDir::Etc::SourceParts={root}/parts",
            f"-oDir::Etc::Preferences={root}/none",
            f"-oDir::Etc::PreferencesParts={root}/parts",
            f"-oDir::State={root}",
            f"-oDir::State::Lists={root}/lists",
            f"-oDir::State::Status={root}/status",
            f"-oDir::Cache={root}/cache",
            # No translations or command indexes: only the list of packages is read.
            "-oAcquire::Languages=none",
            "-oAcquire::IndexTargets::deb::DEP-11::DefaultEnabled=false",
            "-oAPT::Update::Post-Invoke-Success=",
            "-oAPT::Sandbox::User=root",
        ]

    def update(self) -> None:
        run("apt-get", *self.options, "-qq", "update")

    def versions(self, package: str) -> list[str]:
        """The versions of a package in all suites."""
        table = run("apt-cache", *self.options, "madison", package)
        return [line.split("|")[1].strip() for line in table.splitlines() if "Packages" in line]

    def download(self, package: str, version: str, folder: pathlib.Path) -> pathlib.Path:
        """Download that version of a package into an empty folder; the file."""
        run("apt-get", *self.options, "-qq", "download", f"{package}={version}", cwd=folder)
        (file,) = folder.glob("*.deb")
        return file
