"""`culvert selftest` and `culvert bench`."""

import os
import pathlib
import re
import subprocess
import tempfile

from harness.case import InteropCase, culvert_only, heavy, quick
from harness.settings import REPOSITORY

EXPECTED = REPOSITORY / "Tests" / "System" / "known_answers" / "expected"
# A scalar of the group x25519, which the program contains as text.
SCALAR = b"a546e36bf0527c9d3b16154b82465edd62144c0ac1fc5a18506a2244ba449ac4"
# The lines that bench prints, and the least figure of each on any machine.
ROWS = (
    (10, "MB/s sealed, packets of 1420 bytes"),
    (10, "MB/s opened"),
    (100, "X25519 products per second"),
    (10, "handshakes answered per second"),
    (10, "ns to reassemble 2 fragments"),
    (10, "ns to reassemble 2 fragments, last first"),
    (10, "ns to reassemble 7 fragments"),
    (10, "ns to reassemble 7 fragments, last first"),
    (1000, "packets per second and worker sealed, from the TUN"),
    (1000, "packets per second and worker opened, to the TUN"),
    (10, "Mbit/s one way, at most, for a worker with a CPU of its own:"),
)


class SelftestTests(InteropCase):
    def call(self, *arguments: str, program: str = "", **options) -> subprocess.CompletedProcess:
        path = program or self.settings.program.path
        return subprocess.run(
            [path, *arguments], capture_output=True, text=True, timeout=120, check=False, **options
        )

    @quick
    @culvert_only
    def test_every_answer_is_what_the_specifications_say(self) -> None:
        """The digests equal those that known_answers computes independently."""
        result = self.call("selftest")
        self.assertEqual((result.returncode, result.stderr), (0, ""), result.stdout)
        with tempfile.NamedTemporaryFile("w", suffix=".selftest") as file:
            file.write(result.stdout)
            file.flush()
            check = subprocess.run(
                [EXPECTED, file.name], capture_output=True, text=True, timeout=120, check=False
            )
        self.assertEqual((check.returncode, check.stdout + check.stderr), (0, ""))
        self.assertEqual(self.call("selftest").stdout, result.stdout)

    @quick
    @culvert_only
    def test_a_wrong_answer_is_told(self) -> None:
        """One digit of one vector is changed in a copy of the program."""
        data = pathlib.Path(self.settings.program.path).read_bytes()
        self.assertEqual(data.count(SCALAR), 1)
        before = self.call("selftest").stdout.splitlines()
        with tempfile.TemporaryDirectory() as folder:
            damaged = pathlib.Path(folder) / "culvert"
            damaged.write_bytes(data.replace(SCALAR, b"b" + SCALAR[1:]))
            damaged.chmod(0o755)
            result = self.call("selftest", program=str(damaged))
        self.assertEqual((result.returncode, result.stderr), (1, ""))
        after = result.stdout.splitlines()
        changed = [line for line in after if line not in before]
        self.assertEqual(len(after), len(before))
        self.assertEqual(len(changed), 2, changed)
        right = next(line for line in before if line.startswith("ok x25519 ")).split()[2]
        pattern = rf"FAILED x25519 got [0-9a-f]{{16}} expected {right}"
        self.assertRegex(changed[0], rf"\A{pattern}\Z")
        self.assertRegex(changed[1], r"\Adigest [0-9a-f]{16}\Z")

    @quick
    @culvert_only
    def test_it_asks_for_no_rights(self) -> None:
        """It needs no rights and no configuration."""
        nobody = {"user": 65534, "group": 65534, "extra_groups": []}
        with tempfile.TemporaryDirectory() as folder:
            os.chmod(folder, 0o755)
            copy = pathlib.Path(folder) / "culvert"
            copy.write_bytes(pathlib.Path(self.settings.program.path).read_bytes())
            copy.chmod(0o755)
            result = self.call("selftest", program=str(copy), **nobody)
        self.assertEqual(result.returncode, 0, result.stdout + result.stderr)

    @heavy
    @culvert_only
    def test_bench_tells_what_it_measures(self) -> None:
        """Each line is a number and its meaning; the last line is for the slower lane."""
        result = self.call("bench", "--seconds", "1")
        self.assertEqual((result.returncode, result.stderr), (0, ""))
        lines = result.stdout.splitlines()
        found = [re.fullmatch(r" *(\d+)  (.*)", line) for line in lines[: len(ROWS)]]
        self.assertTrue(all(found), result.stdout)
        numbers = [int(match[1]) for match in found if match]
        self.assertEqual([match[2] for match in found if match], [what for _, what in ROWS])
        for number, (least, what) in zip(numbers, ROWS):
            self.assertGreaterEqual(number, least, what)
        self.assertLess(max(map(len, lines)), 100)
        slower = min(numbers[8:10])
        self.assertAlmostEqual(numbers[10], slower * 1420 * 8 // 10**6, delta=1)
        # In order or not, more fragments take longer.
        self.assertGreater(min(numbers[6:8]), min(numbers[4:6]))

    @quick
    @culvert_only
    def test_bench_takes_a_minute_at_most(self) -> None:
        for seconds in ("0", "61", "many"):
            result = self.call("bench", "--seconds", seconds)
            self.assertEqual((result.returncode, result.stdout), (2, ""))
            self.assertIn("--seconds must be a number from 1 to 60", result.stderr)
