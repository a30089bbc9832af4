"""The Debian package: its form, and its installation, upgrade and removal in a Debian 12."""

import os
import shutil

from suites.packages import roots
from suites.packages.case import BOARDS, EPOCH, PackageCase, built, checkout, elf, need

# Files that dpkg writes for any package.
DPKG = ("var/lib/dpkg", "var/log", "var/cache", "var/lib/systemd/deb-systemd-helper")
FAKE_SYSTEMCTL = '#!/bin/sh\necho "$*" >>/run/systemctl.log\n'


class Form(PackageCase):
    def fields(self, deb, *names: str) -> list[str]:
        return [self.output("dpkg-deb", "-f", deb, name).strip() for name in names]

    def test_every_board_has_its_architecture(self):
        programs = {board: elf(item[2], item[3]) for board, item in BOARDS.items()}
        root = checkout(programs)
        made = {board: self.make("deb", board, root) for board in BOARDS}
        for board, (architecture, suffix, *_) in BOARDS.items():
            deb = made[board]
            found = self.fields(deb, "Package", "Architecture", "Version")
            self.assertEqual(found[:2], ["culvert", architecture])
            self.assertTrue(found[2].endswith(f"-1{suffix}"), found)
            self.assertEqual(deb.name, f"culvert_{found[2]}_{architecture}.deb")
            described = "ARMv6" in self.fields(deb, "Description")[0]
            self.assertEqual(described, board == "armv6")
        # If both are available, apt prefers the one that runs on both.
        six, seven = (self.fields(made[board], "Version")[0] for board in ("armv6", "armv7"))
        self.output("dpkg", "--compare-versions", six, "gt", seven)

    def test_same_bytes_elsewhere(self):
        one = self.make("deb", "x86_64").read_bytes()
        root = built("x86_64")
        # Another folder, another day, another umask, another order of the files.
        for path in sorted(root.rglob("*"), reverse=True):
            os.utime(path, (1, 1))
        old = os.umask(0o077)
        try:
            two = self.make("deb", "x86_64", root, TZ="Asia/Tokyo", LC_ALL="C.UTF-8")
        finally:
            os.umask(old)
        self.assertEqual(one, two.read_bytes())

    def test_files_are_roots_and_no_newer_than_the_commit(self):
        deb = self.make("deb", "x86_64")
        listing = self.output("dpkg-deb", "-c", deb, env={"TZ": "UTC"}).splitlines()
        modes = {}
        for line in listing:
            mode, owner, _, day, _, name = line.split(None, 5)
            self.assertEqual((owner, day), ("root/root", "2023-11-14"), line)
            modes[name] = mode
        self.assertEqual(EPOCH, "1700000000")
        self.assertEqual(modes["./usr/bin/culvert"], "-rwxr-xr-x")
        self.assertEqual(modes["./etc/culvert/"], "drwx------")
        self.assertEqual(modes["./etc/culvert/example.conf"], "-rw-------")
        self.assertEqual(modes["./usr/share/man/man8/culvert.8.gz"], "-rw-r--r--")

    def test_a_missing_program_is_said(self):
        root = checkout({})
        for kind in ("deb", "tarball"):
            make, env = root / f"Toolchain/packaging/make-{kind}", {"SOURCE_DATE_EPOCH": EPOCH}
            said = self.output(make, "armv6", status=1, env=env)
            self.assertIn("build/armv6/culvert is missing; run make armv6", said)
            self.assertIn("no board 'mips'", self.output(make, "mips", status=1, env=env))


class Lintian(PackageCase):
    def look(self, board: str) -> None:
        need("lintian")
        deb = self.make("deb", board)
        found = self.output("lintian", "--allow-root", "--fail-on", "error,warning", deb)
        self.assertEqual([line for line in found.splitlines() if line[:1] in "EW"], [])

    def test_aarch64(self):
        self.look("aarch64")

    def test_armv7(self):
        self.look("armv7")

    def test_armv6(self):
        self.look("armv6")

    def test_riscv64(self):
        self.look("riscv64")

    def test_x86_64(self):
        self.look("x86_64")


class Life(PackageCase):
    """Installed, upgraded, removed and purged."""

    def setUp(self):
        root = built("x86_64")
        self.old = self.make("deb", "x86_64", root)
        self.new = self.make("deb", "x86_64", root, VERSION="99.1")
        self.chroot = roots.Chroot("amd64")
        self.addCleanup(self.chroot.close)
        self.log = self.chroot.path / "run" / "systemctl.log"

    def pretend_systemd(self):
        """The scripts find systemd running; their requests to it are logged."""
        (self.chroot.path / "run/systemd/system").mkdir(parents=True)
        fake = self.chroot.path / "usr/local/bin/systemctl"
        fake.write_text(FAKE_SYSTEMCTL)
        fake.chmod(0o755)

    def asked(self) -> list[str]:
        """The requests to systemd since the last call."""
        text = self.log.read_text() if self.log.exists() else ""
        self.log.unlink(missing_ok=True)
        return text.splitlines()

    def dpkg(self, action: str, what) -> str:
        if action == "-i":
            shutil.copy(what, self.chroot.path / "tmp")
            what = f"/tmp/{what.name}"
        # A question would be an error, because nobody can answer it.
        return self.inside(self.chroot, "dpkg", action, str(what))

    def test_life_without_systemd(self):
        before = self.chroot.files()
        self.dpkg("-i", self.old)
        self.assertIn("culvert ", self.inside(self.chroot, "culvert", "version"))
        self.assertEqual(self.inside(self.chroot, "dpkg", "--verify", "culvert"), "")
        self.dpkg("-i", self.new)
        self.dpkg("-r", "culvert")
        self.assertFalse((self.chroot.path / "usr/bin/culvert").exists())
        self.assertTrue((self.chroot.path / "etc/default/culvert").exists())
        self.dpkg("-P", "culvert")
        left = self.difference(before)
        self.assertEqual(left, {})

    def difference(self, before: dict[str, str]) -> dict:
        after = self.chroot.files()
        return {
            name: (before.get(name), after.get(name))
            for name in before.keys() | after.keys()
            if before.get(name) != after.get(name) and not name.startswith(DPKG)
        }

    def test_systemd_is_asked_for_no_more_than_is_needed(self):
        self.pretend_systemd()
        self.dpkg("-i", self.old)
        self.assertEqual(self.asked(), ["--system daemon-reload"])
        self.dpkg("-i", self.new)
        self.assertEqual(self.asked(), ["--system daemon-reload", "try-restart culvert@*.service"])
        self.dpkg("-r", "culvert")
        self.assertEqual(self.asked(), ["stop culvert@*.service", "--system daemon-reload"])

    def test_what_the_administrator_wrote_stays(self):
        etc = self.chroot.path / "etc"
        self.dpkg("-i", self.old)
        (etc / "default/culvert").write_text("LOG_LEVEL=verbose\n")
        (etc / "culvert/wg0.conf").write_text("[Interface]\n")
        wants = etc / "systemd/system/multi-user.target.wants"
        (wants / "culvert@wg0.service").symlink_to("/lib/systemd/system/culvert@.service")
        state = self.chroot.path / "var/lib/culvert"
        state.mkdir()
        (state / "wg0").write_bytes(bytes(12))
        self.dpkg("-i", self.new)
        self.assertIn("99.1", self.inside(self.chroot, "dpkg-query", "-W", "culvert"))
        self.assertEqual((etc / "default/culvert").read_text(), "LOG_LEVEL=verbose\n")
        self.dpkg("-r", "culvert")
        self.assertTrue((state / "wg0").exists(), "removed is not purged")
        self.dpkg("-P", "culvert")
        self.assertFalse((etc / "default/culvert").exists())
        self.assertFalse(state.exists())
        self.assertFalse((wants / "culvert@wg0.service").is_symlink(), "it leads nowhere")
        self.assertEqual([each.name for each in (etc / "culvert").iterdir()], ["wg0.conf"])
