"""The command line: options, errors, keys, the budget."""

import os
import subprocess

from harness.case import InteropCase, culvert_only, each, quick
from harness.lab.control import UAPIConnection
from harness.waiting import wait_until

NOBODY = 65534
LARGEST_MTU = 65475  # the largest packet that fits into a datagram

WRONG = {
    "unknown_option": (("--no-such-option", "wg0"), "--no-such-option"),
    "missing_value": (("--profile",), "--profile"),
    "unknown_profile": (("--profile", "huge", "wg0"), "huge"),
    "not_a_number": (("--max-peers", "many", "wg0"), "many"),
    "out_of_range": (("--max-peers=0", "wg0"), "65536"),
    "two_names": (("wg0", "wg1"), "wg1"),
    "bad_name": (("a/b",), "a/b"),
}


class CommandLineTests(InteropCase):
    def call(self, *arguments: str, **options) -> subprocess.CompletedProcess:
        path = self.settings.program.path
        return subprocess.run(
            [path, *arguments], capture_output=True, text=True, timeout=30, check=False, **options
        )

    @quick
    @culvert_only
    @each(mistake=tuple(WRONG))
    def test_a_mistake_is_told_in_one_line(self, mistake: str) -> None:
        """The exit status is 2, and one line names the mistake."""
        arguments, culprit = WRONG[mistake]
        result = self.call(*arguments)
        self.assertEqual((result.returncode, result.stdout), (2, ""))
        self.assertEqual(result.stderr.count("\n"), 1)
        self.assertTrue(result.stderr.startswith("culvert: "), result.stderr)
        self.assertIn(culprit, result.stderr)

    @quick
    @culvert_only
    @each(word=("show", "genkye", "up", "shwo", "Forwrad", "status"))
    def test_R69_a_command_is_not_an_interface(self, word: str) -> None:
        """Neither one of another program nor a misspelt one, whatever follows it."""
        meant = {"genkye": "genkey", "shwo": "show", "Forwrad": "forward"}.get(word)
        for rest in ((), ("wg0",)):
            # Without the right to make an interface, in case it tries.
            result = self.call("-f", word, *rest, user=NOBODY, group=NOBODY, extra_groups=[])
            self.assertEqual((result.returncode, result.stdout), (2, ""))
            self.assertEqual(result.stderr.count("\n"), 1)
            self.assertIn(f"culvert -- {word}", result.stderr)
            if meant:
                self.assertIn(f"did you mean {meant}?", result.stderr)

    @quick
    @culvert_only
    def test_R69_names_of_interfaces_stay_names(self) -> None:
        """Also those near a command; `--` makes any word a name."""
        names = ["wg0", "tun0", "utun", "culvert0", "home", "office", "show0", "up1", "peers2"]
        names += ["beach", "shop", "safe", "us", "town", "beer", "server", "vpn", "wg-exit"]
        for words in [[name] for name in names] + [["--", "show"], ["-f", "--", "genkey"]]:
            result = self.call("-f", *words, user=NOBODY, group=NOBODY, extra_groups=[])
            self.assertEqual(result.returncode, 1, (words, result.stderr))
            self.assertIn(f"cannot create {words[-1]}", result.stderr)
        for words in (["--"], ["--", "wg0", "wg1"], ["wg0", "--", "wg1"]):
            self.assertEqual(self.call(*words).returncode, 2, words)

    @culvert_only
    @each(mtu=(67, LARGEST_MTU + 1, 65535))
    def test_R33_an_mtu_beyond_the_buffers_is_refused(self, mtu: int) -> None:
        """The message contains the limit."""
        result = self.call("--mtu", str(mtu), "wg0")
        self.assertEqual(result.returncode, 2)
        self.assertIn(str(LARGEST_MTU), result.stderr)

    @culvert_only
    def test_R33_an_mtu_raised_beyond_the_buffers_is_told(self) -> None:
        """The owner may set any MTU of the interface; the log has the limit of the tunnel."""
        pair = self.pair(level="error")
        pair.handshake()
        pair.ours.namespace.ip(f"link set {pair.ours.interface} mtu {LARGEST_MTU + 40}")
        wait_until(lambda: str(LARGEST_MTU) in pair.ours.log, "a line about the MTU")
        pair.handshake()

    @culvert_only
    def test_without_rights_it_says_what_is_missing(self) -> None:
        """As an ordinary user: exit status 1 and one line."""
        result = self.call("-f", "cvnorights", user=NOBODY, group=NOBODY, extra_groups=[])
        self.assertEqual(result.returncode, 1)
        self.assertEqual(result.stderr.count("\n"), 1)
        self.assertRegex(result.stderr, "root|CAP_NET_ADMIN")

    @quick
    @culvert_only
    def test_help_and_version(self) -> None:
        """Help names every command; the version is one line."""
        for arguments in (("--help",), ("-h",), ("help",)):
            result = self.call(*arguments)
            self.assertEqual(result.returncode, 0)
            for word in ("genkey", "genpsk", "pubkey", "budget", "version", "--profile"):
                self.assertIn(word, result.stdout)
            self.assertLessEqual(max(map(len, result.stdout.splitlines())), 100)
        for arguments in (("version",), ("--version",)):
            self.assertRegex(self.call(*arguments).stdout, r"\Aculvert \d+\.\d+\.\d+\n\Z")

    @quick
    @culvert_only
    def test_keys_are_as_wg_makes_them(self) -> None:
        """genkey, genpsk and pubkey agree with wg(8)."""
        private = self.call("genkey").stdout
        self.assertEqual(len(private), 45)
        self.assertNotEqual(private, self.call("genkey").stdout)
        ours = self.call("pubkey", input=private)
        theirs = subprocess.run(
            ["wg", "pubkey"], input=private, capture_output=True, text=True, check=True
        )
        self.assertEqual(ours.stdout, theirs.stdout)
        self.assertEqual(len(self.call("genpsk").stdout), 45)
        for wrong in ("", "short", private.strip() + "A"):
            result = self.call("pubkey", input=wrong)
            self.assertEqual((result.returncode, result.stdout), (1, ""), wrong)

    @quick
    @culvert_only
    @each(profile=("tiny", "standard", "gateway"))
    def test_the_budget_adds_up(self, profile: str) -> None:
        """The lines add up to the total, and a limit makes it smaller."""
        total = self.budget("--profile", profile)
        self.assertLess(self.budget("--profile", profile, "--max-peers", "1"), total)

    def budget(self, *options: str) -> int:
        rows = [
            line.split(None, 1)
            for line in self.call("budget", *options).stdout.splitlines()
            if line.lstrip()[:1].isdigit()
        ]
        totals = [index for index, (_, owner) in enumerate(rows) if owner.startswith("total")]
        self.assertEqual(len(totals), 1)
        total = int(rows[totals[0]][0])
        self.assertEqual(sum(int(count) for count, _ in rows[: totals[0]]), total)
        return total

    @culvert_only
    def test_a_table_that_is_full_is_an_error(self) -> None:
        """ENOSPC for the first peer or allowed IP above the limit; the others stay."""
        node = self.node()
        node.start(options=("--max-peers", "2", "--max-allowed-ips", "3"))
        first, second, third = (f"public_key={os.urandom(32).hex()}" for _ in range(3))
        prefixes = [f"allowed_ip=10.0.{number}.0/24" for number in range(4)]
        with UAPIConnection(node.socket_path) as connection:
            self.assertEqual(connection.set(first, second), 0)
            self.assertEqual(connection.set(third), -28)
            self.assertEqual(connection.set(first, *prefixes), -28)
            shown = connection.get()
            self.assertEqual([key for key, _ in shown].count("public_key"), 2)
            self.assertNotIn("allowed_ip", dict(shown))
            self.assertEqual(connection.set(first, *prefixes[:3]), 0)
