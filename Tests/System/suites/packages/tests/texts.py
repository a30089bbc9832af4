"""The man page and the completions have every option and command; scripts pass shellcheck."""

import re

from suites.packages import roots
from suites.packages.case import PACKAGE, REPOSITORY, PackageCase, need

SOURCES = REPOSITORY / "Sources" / "culvert"
COMMANDS = ("forward", "budget", "genkey", "genpsk", "pubkey", "selftest", "bench", "version")
SCRIPTS = (
    *(PACKAGE / "debian" / name for name in ("postinst", "prerm", "postrm")),
    PACKAGE / "install.sh",
    PACKAGE / "openwrt" / "culvert",
    PACKAGE / "openrc" / "culvert",
)


def options() -> set[str]:
    text = "".join((SOURCES / f"{name}.swift").read_text() for name in ("Options", "ValueOption"))
    return set(re.findall(r'"(--[a-z-]+)"', text))


class Texts(PackageCase):
    def test_options_are_found_in_the_sources(self):
        self.assertLess({"--config", "--max-flows", "--no-offload", "--help"}, options())

    def test_man_page_has_every_option_and_command(self):
        page = (PACKAGE / "culvert.8").read_text().replace("\\-", "-")
        for option in options():
            self.assertRegex(page, rf"(?m)^\.It .*Fl -{option[2:]}\b", option)
        for command in COMMANDS:
            self.assertRegex(page, rf"(?m)^\.It Cm {command}\b", command)

    def test_completions_have_every_option_and_command(self):
        for name in ("culvert.bash", "culvert.fish", "_culvert"):
            text = (PACKAGE / "completions" / name).read_text()
            for word in options():
                wanted = word if name != "culvert.fish" else f"-l {word[2:]}"
                self.assertRegex(text, rf"{re.escape(wanted)}\b", f"{name}: {word}")
            for command in COMMANDS:
                self.assertRegex(text, rf"\b{command}\b", f"{name}: {command}")

    def test_man_page_is_sound(self):
        need("mandoc")
        page = roots.folder("man") / "culvert.8"
        text = (PACKAGE / "culvert.8").read_text()
        page.write_text(text.replace("Dd DATE", "Dd January 1, 2026"))
        complaints = [
            line
            for line in self.output("mandoc", "-Tlint", "-Wwarning", page).splitlines()
            if "outdated mandoc.db" not in line
        ]
        self.assertEqual(complaints, [])

    def complete(self, line: str) -> list[str]:
        """The completions that bash offers for the last word of a line."""
        script = (
            'source "$1"; shift; COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _culvert; '
            'printf "%s\\n" "${COMPREPLY[@]}"'
        )
        file = PACKAGE / "completions" / "culvert.bash"
        return self.output("bash", "-c", script, "bash", file, *line.split(" ")).split()

    def test_bash_completes(self):
        self.assertEqual(self.complete("culvert gen"), ["genkey", "genpsk"])
        self.assertEqual(self.complete("culvert --profile t"), ["tiny"])
        self.assertEqual(self.complete("culvert --profile = g"), ["gateway"])
        self.assertEqual(self.complete("culvert --offload tso,g"), ["tso,gso", "tso,gro"])
        self.assertEqual(self.complete("culvert wg0 --through /etc/os-r"), ["/etc/os-release"])
        self.assertEqual(self.complete("culvert forward --u"), ["--udp"])
        self.assertEqual(self.complete("culvert wg0 --u"), [])

    def test_zsh_reads_its_completion(self):
        need("zsh")
        self.output("zsh", "-n", PACKAGE / "completions" / "_culvert")

    def test_fish_completes(self):
        need("fish")
        file = PACKAGE / "completions" / "culvert.fish"
        env = {"HOME": str(roots.folder("fish"))}
        found = self.output(
            "fish", "-c", f"source {file}; complete -C 'culvert forward --max-f'", env=env
        )
        self.assertEqual(found.split("\t")[0], "--max-flows")

    def test_scripts_pass_shellcheck(self):
        need("shellcheck")
        self.output("shellcheck", "-x", *SCRIPTS, PACKAGE / "completions" / "culvert.bash")

    def test_scripts_are_plain_shell(self):
        need("busybox")
        for script in SCRIPTS:
            self.output("busybox", "sh", "-n", script)
