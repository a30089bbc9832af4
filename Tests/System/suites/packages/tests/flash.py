"""`flash` detects the board, keeps links inside the card, and checks before it writes."""

import os
import pathlib
import shutil

from suites.packages import roots
from suites.packages.cards import CONFIG, HARD, KEY, PROGRAMS, SOFT, arm, card, snapshot
from suites.packages.case import PackageCase, built, checkout, elf, need

SYSTEMD_LINK = "etc/systemd/system/multi-user.target.wants/culvert@wg0.service"


class FlashCase(PackageCase):
    def setUp(self):
        self.root = checkout(PROGRAMS)
        self.config = roots.folder("config") / "wg0.conf"
        self.config.write_text(CONFIG)

    def flash(self, *words, status: int = 0) -> str:
        said = self.output(
            *(self.root / "Toolchain/packaging/flash", *words),
            status=status,
            env={"SOURCE_DATE_EPOCH": "1"},
        )
        self.assertNotIn(KEY, said)
        return said

    def board(self, path: pathlib.Path, *words) -> str:
        """The board that it detects, without writing."""
        return self.flash("--dry-run", *words, path).split("board ")[1].split()[0]


class Boards(FlashCase):
    def test_64_bit(self):
        self.assertEqual(self.board(card(elf(0xB7, 2))), "aarch64")
        self.assertEqual(self.board(card(elf(0xF3, 2, 5))), "riscv64")
        self.assertEqual(self.board(card(elf(0x3E, 2))), "x86_64")

    def test_armv6_and_armv7(self):
        self.assertEqual(self.board(card(arm(HARD, 10))), "armv7")
        self.assertEqual(self.board(card(arm(HARD, 14))), "armv7", "v8")
        self.assertEqual(self.board(card(arm(HARD, 6))), "armv6")
        self.assertEqual(self.board(card(arm(HARD))), "armv6", "it runs on both")

    def test_raspberry_pi_os_is_armv6_whatever_its_shell_says(self):
        self.assertEqual(self.board(card(arm(HARD, 10), release="ID=raspbian")), "armv6")
        self.assertEqual(self.board(card(arm(HARD, 10), release='ID="raspbian"')), "armv6")
        self.assertEqual(self.board(card(elf(0xB7, 2), release="ID=raspbian")), "aarch64")

    def test_openwrt_tells_by_its_release(self):
        for name, board in (
            ("arm_cortex-a7_neon-vfpv4", "armv7"),
            ("arm_cortex-a9_vfpv3-d16", "armv6"),
            ("arm_arm1176jzf-s_vfp", "armv6"),
        ):
            path = card(arm(HARD), "openwrt")
            (path / "etc/openwrt_release").write_text(f"DISTRIB_ARCH='{name}'\n")
            self.assertEqual(self.board(path), board, name)

    def test_what_there_is_no_program_for_is_refused(self):
        for shell, name in (
            (elf(8, 1, order=2), "big-endian"),
            (elf(8, 1), "mips"),
            (elf(3, 1), "i386"),
            (elf(0xF3, 1), "riscv32"),
            (elf(0x16, 2), "ELF-machine-0x0016"),
        ):
            said = self.flash("--dry-run", card(shell), status=1)
            self.assertIn(f"the card is for {name}, for which there is no Culvert", said)
        said = self.flash("--dry-run", card(arm(SOFT, 10)), status=1)
        self.assertIn("without floating point", said)
        said = self.flash("--dry-run", card(b"#!/bin/busybox\n"), status=1)
        self.assertIn("no program on the card tells its processor", said)

    def test_a_board_may_be_chosen_that_runs_there(self):
        self.assertEqual(self.board(card(arm(HARD, 10)), "--board", "armv6"), "armv6")
        self.assertEqual(self.board(card(arm(SOFT, 5)), "--board", "armv6"), "armv6")
        self.assertEqual(self.board(card(b"?"), "--board", "riscv64"), "riscv64")
        for board in ("armv7", "x86_64"):
            said = self.flash("--dry-run", "--board", board, card(elf(0xB7, 2)), status=1)
            self.assertIn(f"BOARD={board} does not run on the card, which is for aarch64", said)
        said = self.flash("--dry-run", "--board", "z80", card(b"?"), status=1)
        self.assertIn("no board 'z80'", said)

    def test_a_program_in_the_wrong_folder_is_noticed(self):
        (self.root / "build/aarch64/culvert").write_bytes(PROGRAMS["x86_64"])
        path = card(elf(0xB7, 2))
        before = snapshot(path)
        said = self.flash(path, status=1)
        self.assertIn("build/aarch64/culvert is no program for aarch64", said)
        self.assertEqual(snapshot(path), before)

    def test_a_missing_program_is_made(self):
        target = self.root / "build/riscv64/culvert"
        program = target.read_bytes()
        target.unlink()
        (self.root / "program").write_bytes(program)
        (self.root / "Makefile").write_text("build/$(ARCH)/culvert:\n\tcp program $@\n")
        path = card(elf(0xF3, 2))
        self.assertIn("build     build/riscv64/culvert", self.flash("--dry-run", path))
        self.assertFalse(target.exists())
        self.flash(path)
        self.assertEqual((path / "usr/bin/culvert").read_bytes(), program)


class Writing(FlashCase):
    def test_everything_is_there_with_its_rights(self):
        path = card(arm(HARD, 6))
        old = os.umask(0o077)
        try:
            said = self.flash("--config", self.config, path)
        finally:
            os.umask(old)
        modes = {
            "usr/bin/culvert": 0o100755,
            "usr/lib/systemd/system/culvert@.service": 0o100644,
            "usr/lib/systemd/system": 0o040755,
            "etc/culvert": 0o040700,
            "etc/culvert/example.conf": 0o100600,
            "etc/culvert/wg0.conf": 0o100600,
        }
        for name, mode in modes.items():
            status = (path / name).stat()
            self.assertEqual((oct(status.st_mode), status.st_uid), (oct(mode), 0), name)
        self.assertEqual((path / "usr/bin/culvert").read_bytes(), PROGRAMS["armv6"])
        self.assertEqual((path / "etc/culvert/wg0.conf").read_text(), CONFIG)
        link = "/usr/lib/systemd/system/culvert@.service"
        self.assertEqual(str((path / SYSTEMD_LINK).readlink()), link)
        self.assertIn(f"enable    /{SYSTEMD_LINK} -> {link}", said)

    def test_systemd_takes_it_for_enabled(self):
        path = card(elf(0xB7, 2))
        self.flash("--config", self.config, path)
        self.assert_enabled(path)

    def test_a_dry_run_says_the_same_and_writes_nothing(self):
        path = card(elf(0xB7, 2))
        before = snapshot(path)
        dry = self.flash("--dry-run", "--config", self.config, path).splitlines()
        self.assertEqual(snapshot(path), before)
        wet = self.flash("--config", self.config, path).splitlines()
        self.assertEqual(dry[:-1], wet[:-1])
        self.assertEqual(dry[-1], "note      dry run: nothing was written")

    def test_a_second_time_changes_nothing(self):
        for system in ("systemd", "openrc", "openwrt"):
            path = card(elf(0xB7, 2), system)
            self.flash("--config", self.config, path)
            before = snapshot(path)
            said = self.flash("--config", self.config, path)
            self.assertEqual(snapshot(path), before, system)
            self.assertNotIn("install ", said)
            self.assertNotIn("enable ", said)

    def test_without_a_configuration_nothing_is_started(self):
        for system in ("systemd", "openrc", "openwrt"):
            path = card(elf(0xB7, 2), system)
            self.assertNotIn("enable ", self.flash(path))
            links = [file for file in (path / "etc").rglob("*") if file.is_symlink()]
            self.assertEqual([link.name for link in links], ["os-release"])

    def test_openrc_and_openwrt_are_enabled_too(self):
        path = card(elf(0xB7, 2), "openrc")
        self.flash("--config", self.config, path)
        self.assertEqual(str((path / "etc/init.d/culvert.wg0").readlink()), "culvert")
        link = path / "etc/runlevels/default/culvert.wg0"
        self.assertEqual(str(link.readlink()), "/etc/init.d/culvert.wg0")
        path = card(elf(0xB7, 2), "openwrt")
        self.flash("--config", self.config, path)
        for name in ("S90culvert", "K10culvert"):
            self.assertEqual(str((path / "etc/rc.d" / name).readlink()), "../init.d/culvert")
        self.assertTrue(os.access(path / "etc/rc.d/S90culvert", os.X_OK))
        script = (path / "etc/init.d/culvert").read_text()
        self.assertIn("START=90\nSTOP=10\n", script)

    def test_what_is_on_the_card_is_kept(self):
        path = card(elf(0xB7, 2))
        (path / "etc/default").mkdir()
        (path / "etc/default/culvert").write_text("mine")
        (path / "etc/culvert").mkdir(mode=0o700)
        (path / "etc/culvert/wg0.conf").write_text("another key")
        self.assertIn("keep      /etc/default/culvert", self.flash("--config", self.config, path))
        self.assertEqual((path / "etc/default/culvert").read_text(), "mine")
        self.assertEqual((path / "etc/culvert/wg0.conf").read_text(), CONFIG)
        old = path / "etc/culvert/wg0.conf.old"
        self.assertEqual((old.read_text(), old.stat().st_mode & 0o777), ("another key", 0o600))

    def test_a_kernel_without_tun_is_told_of(self):
        path = card(elf(0xB7, 2))
        modules = path / "usr/lib/modules/6.1"
        modules.mkdir(parents=True)
        self.assertIn("has no module tun", self.flash("--dry-run", path))
        (modules / "modules.builtin").write_text("kernel/drivers/net/tun.ko\n")
        self.assertNotIn("has no module tun", self.flash("--dry-run", path))
        (modules / "modules.builtin").write_text("kernel/drivers/net/veth.ko\n")
        self.assertIn("has no module tun", self.flash("--dry-run", path))
        (modules / "tun.ko.xz").touch()
        self.assertNotIn("has no module tun", self.flash("--dry-run", path))


class Links(FlashCase):
    """No link on the card leads outside of it."""

    def setUp(self):
        super().setUp()
        self.outside = roots.folder("outside")
        (self.outside / "kept").write_text("kept")
        self.before = snapshot(self.outside)

    def tearDown(self):
        self.assertEqual(snapshot(self.outside), self.before)

    def test_an_absolute_link_leads_to_the_cards_own_folder(self):
        path = card(elf(0xB7, 2))
        (path / "etc/culvert").symlink_to("/data/culvert")
        (path / "data/culvert").mkdir(parents=True)
        self.flash("--config", self.config, path)
        self.assertEqual((path / "data/culvert/wg0.conf").read_text(), CONFIG)

    def test_a_link_to_what_is_only_outside_is_refused(self):
        for to in (self.outside, pathlib.Path("/run/.." * 9 + str(self.outside))):
            for name in ("etc/culvert", "usr/share", "etc/systemd", "usr/lib/systemd/system"):
                path = card(elf(0xB7, 2))
                (path / name).symlink_to(to)
                said = self.flash("--config", self.config, path, status=1)
                self.assertIn("which is not there", said)
                self.assertEqual(list(path.rglob("wg0.conf")), [])

    def test_dots_stop_at_the_cards_root(self):
        path = card(elf(0xB7, 2))
        (path / "etc/culvert").symlink_to("../../../../../../../../../../data")
        (path / "data").mkdir()
        self.flash("--config", self.config, path)
        self.assertTrue((path / "data/wg0.conf").is_file())

    def test_a_link_in_the_place_of_a_file_is_replaced(self):
        path = card(elf(0xB7, 2))
        (path / "usr/bin/culvert").symlink_to(self.outside / "kept")
        (path / "etc/culvert").mkdir(mode=0o700)
        (path / "etc/culvert/wg0.conf").symlink_to(self.outside / "kept")
        (path / "etc/culvert/.wg0.conf.new").symlink_to(self.outside / "kept")
        (path / "etc/culvert/example.conf").symlink_to(self.outside)
        self.flash("--config", self.config, path)
        for name in ("usr/bin/culvert", "etc/culvert/wg0.conf", "etc/culvert/example.conf"):
            self.assertFalse((path / name).is_symlink(), name)
            self.assertTrue((path / name).is_file(), name)

    def test_the_processor_is_read_inside_too(self):
        path = card(elf(0xB7, 2))
        (self.outside / "sh").write_bytes(elf(0x3E, 2))
        self.before = snapshot(self.outside)
        (path / "usr/bin/dash").unlink()
        (path / "usr/bin/dash").symlink_to(self.outside / "sh")
        self.assertIn("is no root file system", self.flash("--dry-run", path, status=1))

    def test_circles_end(self):
        path = card(elf(0xB7, 2))
        (path / "etc/culvert").symlink_to("culvert")
        self.assertIn("lead in a circle", self.flash("--dry-run", path, status=1))


class Mistakes(FlashCase):
    def test_of_the_root(self):
        for words, text in (
            ((), "where is the card mounted?"),
            (("",), "where is the card mounted?"),
            (("/",), "is this machine's own root"),
            (("/usr/..",), "is this machine's own root"),
            (("/proc/self/root/",), "is this machine's own root"),
            (("/nowhere",), "/nowhere is no folder"),
            (("/etc/passwd",), "is no folder"),
            ((roots.folder("empty"),), "is no root file system"),
            (("--nonsense", "/mnt"), "unknown option '--nonsense'"),
        ):
            self.assertIn(text, self.flash(*words, status=1), words)
        boot = roots.folder("bootfs")
        (boot / "config.txt").touch()
        self.assertIn("is a boot partition", self.flash(boot, status=1))

    def test_of_the_system(self):
        path = card(elf(0xB7, 2))
        (path / "usr/lib/systemd/systemd").unlink()
        self.assertIn("neither systemd nor OpenRC nor OpenWrt", self.flash(path, status=1))

    def test_of_the_configuration(self):
        path = card(elf(0xB7, 2))
        before = snapshot(path)
        folder = self.config.parent
        key = f"PrivateKey={KEY}"
        for name, text, said in (
            ("absent.conf", None, "is no file"),
            ("wg0.txt", CONFIG, "must be called NAME.conf"),
            (".conf", CONFIG, "'' is no name for an interface"),
            ("..conf", CONFIG, "'.' is no name for an interface"),
            ("-f.conf", CONFIG, "'-f' is no name for an interface"),
            ("a b.conf", CONFIG, "'a b' is no name for an interface"),
            ("a:b.conf", CONFIG, "'a:b' is no name for an interface"),
            ("tunnel-of-sixte.conf", CONFIG, None),
            ("tunnel-of-sixtee.conf", CONFIG, "is too long for an interface"),
            ("example.conf", CONFIG, "choose another"),
            ("a.conf", "", "has no PrivateKey"),
            ("b.conf", f"[Peer]\n{key}\n", "has no PrivateKey"),
            ("c.conf", f"[Interface]\n#{key}\n[Peer]\n", "has no PrivateKey"),
            ("d.conf", "[Interface]\nPrivateKey = abc=\n", "is no key"),
            ("e.conf", f"[Interface]\n{key[:-2]}==\n".replace("==", "!="), "is no key"),
            ("f.conf", f"[interface]\r\n privatekey ={KEY} # mine\r\n", None),
        ):
            file = folder / name
            if text is not None:
                file.write_text(text)
            result = self.flash("--dry-run", "--config", file, path, status=1 if said else 0)
            if said:
                self.assertIn(said, result, name)
        self.assertEqual(snapshot(path), before)

    def test_of_a_user_without_rights(self):
        path = card(elf(0xB7, 2))
        for place in (roots.SCRATCH, self.root, path):
            place.chmod(0o755)
        user = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
        env = {"SOURCE_DATE_EPOCH": "1"}
        said = self.output(*user, self.root / "Toolchain/packaging/flash", path, status=1, env=env)
        self.assertIn("needs root", said)
        self.output(*user, self.root / "Toolchain/packaging/flash", "--dry-run", path, env=env)


# A card with a real Debian for another processor, where the flashed program is run.

QEMU = "/usr/bin/qemu-aarch64-static"


class Card(PackageCase):
    def setUp(self):
        need("qemu-aarch64-static", "qemu-user-static")
        self.checkout = built("aarch64")
        self.card = roots.root("arm64")

    def flash(self, *words) -> str:
        flash = self.checkout / "Toolchain/packaging/flash"
        return self.output(flash, *words, self.card, env={"SOURCE_DATE_EPOCH": "1"})

    def emulated(self, *words, **options) -> str:
        """Run a program of the card inside it."""
        shutil.copy(QEMU, self.card / "tmp/qemu")
        return self.output("chroot", self.card, "/tmp/qemu", *words, **options)

    def test_the_flashed_program_runs_on_the_card(self):
        config = roots.folder("config") / "wg0.conf"
        config.write_text(CONFIG)
        said = self.flash("--config", config)
        self.assertIn("(systemd, aarch64), board aarch64", said)
        self.assertRegex(self.emulated("/usr/bin/culvert", "version"), r"^culvert \d")
        self.assertEqual(len(self.emulated("/usr/bin/culvert", "genkey").strip()), len(KEY))
        self.assert_enabled(self.card)

    def test_the_flashed_program_checks_itself(self):
        self.flash()
        if b"selftest" not in (self.card / "usr/bin/culvert").read_bytes():
            self.skipTest("this program has no selftest")
        self.emulated("/usr/bin/culvert", "selftest")
