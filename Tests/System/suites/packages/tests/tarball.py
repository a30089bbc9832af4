"""The tarball's install.sh with only BusyBox, and the commands of the init scripts."""

import os
import pathlib
import subprocess

from suites.packages import roots
from suites.packages.case import PACKAGE, PackageCase, built, need

# The files by which install.sh recognises each kind of system.
KINDS = {
    "openwrt": "etc/openwrt_release",
    "openrc": "sbin/openrc-run",
    "systemd": "etc/systemd/system.conf",
}
SCRIPTS = {
    "openwrt": "etc/init.d/culvert",
    "openrc": "etc/init.d/culvert",
    "systemd": "usr/lib/systemd/system/culvert@.service",
}


def tree(path: pathlib.Path) -> dict[str, tuple[int, bytes]]:
    """Mode and content of every file."""
    return {
        str(file.relative_to(path)): (file.stat().st_mode & 0o7777, file.read_bytes())
        for file in path.rglob("*")
        if file.is_file()
    }


class Install(PackageCase):
    def setUp(self):
        need("busybox")
        self.tools = roots.folder("busybox")
        subprocess.run(["busybox", "--install", "-s", self.tools], check=True)
        archive = self.make("tarball", "x86_64")
        place = roots.folder("unpacked")
        self.output("busybox", "tar", "-xzf", archive, "-C", place)
        (self.folder,) = place.iterdir()

    def install(self, *words, status: int = 0) -> str:
        """Run it with only the tools of BusyBox."""
        script = self.folder / "install.sh"
        command = (self.tools / "sh", script, *words)
        return self.output(*command, status=status, env={"PATH": str(self.tools)})

    def device(self, kind: str) -> pathlib.Path:
        root = roots.folder(kind)
        (root / KINDS[kind]).parent.mkdir(parents=True)
        (root / KINDS[kind]).touch(mode=0o755)
        return root

    def test_it_installs_for_what_it_finds(self):
        for kind, script in SCRIPTS.items():
            root = self.device(kind)
            self.install("--root", root)
            found = tree(root)
            self.assertEqual(found["usr/bin/culvert"][0], 0o755, kind)
            self.assertEqual(found["etc/culvert/example.conf"][0], 0o600, kind)
            self.assertEqual((root / "etc/culvert").stat().st_mode & 0o7777, 0o700, kind)
            mode = 0o644 if kind == "systemd" else 0o755
            self.assertEqual(found[script][0], mode, kind)
            self.assertEqual("usr/share/man/man8/culvert.8" in found, kind != "openwrt")
            others = [each for each in SCRIPTS.values() if each != script]
            self.assertFalse(set(others) & found.keys(), kind)

    def test_again_is_the_same_and_keeps_what_was_written(self):
        for kind in KINDS:
            root = self.device(kind)
            self.install("--root", root)
            own = root / "etc/culvert/example.conf"
            own.write_text("mine")
            (root / "usr/bin/culvert").write_text("old")
            before = tree(root)
            self.assertIn(f"kept       {own}", self.install("--root", root))
            after = tree(root)
            program = (self.folder / "culvert").read_bytes()
            self.assertEqual(after.pop("usr/bin/culvert"), (0o755, program))
            before.pop("usr/bin/culvert")
            self.assertEqual(before, after)

    def test_removal_leaves_the_configuration(self):
        for kind in KINDS:
            root = self.device(kind)
            self.install("--root", root)
            (root / "etc/culvert/wg0.conf").write_text("key")
            self.install("--root", root, "--remove")
            left = {name for name in tree(root) if "culvert" in name}
            # The settings file, if there is one, belongs to the administrator.
            left -= {"etc/default/culvert", "etc/conf.d/culvert"}
            self.assertEqual(left, {"etc/culvert/example.conf", "etc/culvert/wg0.conf"}, kind)

    def test_what_cannot_be_done_is_said(self):
        said = self.install("--root", roots.folder("empty"), status=1)
        self.assertIn("no systemd, OpenRC or OpenWrt here", said)
        self.assertIn("usage: ", self.install("--nonsense", status=1))
        self.assertIn("no system 'runit'", self.install("--system", "runit", status=1))
        (self.folder / "culvert").unlink()
        said = self.install("--root", self.device("openrc"), status=1)
        self.assertIn("the program culvert is missing", said)

    def test_same_bytes_elsewhere(self):
        one = self.make("tarball", "x86_64").read_bytes()
        root = built("x86_64")
        for path in sorted(root.rglob("*"), reverse=True):
            os.utime(path, (1, 1))
        old = os.umask(0o077)
        try:
            two = self.make("tarball", "x86_64", root, TZ="Asia/Tokyo", LC_ALL="C.UTF-8")
        finally:
            os.umask(old)
        self.assertEqual(one, two.read_bytes())


class InitScripts(PackageCase):
    """The commands that the scripts give to procd and OpenRC."""

    def setUp(self):
        need("busybox")
        self.etc = roots.folder("etc")

    def sourced(self, name: str, before: str, after: str, **env: str) -> list[str]:
        script = roots.folder("init") / "script"
        text = (PACKAGE / name / "culvert").read_text()
        script.write_text(text.replace("/etc/culvert", str(self.etc)))
        command = f"set -eu\n{before}\n. {script}\n{after}"
        return self.output("busybox", "sh", "-c", command, env=env).splitlines()

    def start_openwrt(self) -> list[str]:
        """The parameters that procd receives."""
        before = "procd_open_instance() { echo open $1; }; procd_close_instance() { echo close; };"
        before += "procd_set_param() { echo $*; }"
        return self.sourced("openwrt", before, "start_service")

    def test_openwrt_has_an_instance_for_each_file(self):
        self.assertEqual(self.start_openwrt(), [])
        for name in ("example.conf", "wg0.conf", "wg1.conf", "wg1.conf.old"):
            (self.etc / name).touch()
        (self.etc / "options").write_text("--profile tiny\n")
        (self.etc / "wg1.options").write_text("--workers 1\n")
        lines = self.start_openwrt()
        self.assertEqual([each for each in lines if each[:4] == "open"], ["open wg0", "open wg1"])
        common = f"command /usr/bin/culvert --foreground --state-dir {self.etc}/state"
        commands = [each for each in lines if each.startswith("command")]
        self.assertEqual(
            commands,
            [
                f"{common} --profile tiny --config {self.etc}/wg0.conf -- wg0",
                f"{common} --profile tiny --workers 1 --config {self.etc}/wg1.conf -- wg1",
            ],
        )
        self.assertEqual(lines.count("close"), 2)
        self.assertIn("respawn 3600 5 0", lines)

    def openrc(self, service: str, after: str) -> list[str]:
        before = 'eerror() { echo "error: $*"; }'
        return self.sourced("openrc", before, after, RC_SVCNAME=service)

    def test_openrc_has_a_service_for_each_link(self):
        (self.etc / "wg0.conf").touch()
        after = 'start_pre && echo "$supervisor $command $command_args $LOG_LEVEL"'
        self.assertEqual(
            self.openrc("culvert.wg0", after),
            [
                "supervise-daemon /usr/bin/culvert "
                f"--foreground  --config {self.etc}/wg0.conf -- wg0 error"
            ],
        )

    def test_openrc_says_which_file_is_missing(self):
        self.assertEqual(
            self.openrc("culvert.wg9", "start_pre || true"),
            [f"error: {self.etc}/wg9.conf is missing"],
        )
        (said,) = self.openrc("culvert", "start_pre || true")
        self.assertIn("which tunnel?", said)
