"""A card with a real Debian for another processor, and its flashed program run there."""

import shutil

from . import roots
from .cards import CONFIG, KEY
from .case import PackageCase, built, need

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
        """A program of the card, run from inside."""
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
