"""`culvert selftest`: all boards compute the same results."""

import pathlib
import subprocess
import tempfile

from harness.case import InteropCase
from harness.settings import REPOSITORY
from suites.boards.boards import NATIVE

EXPECTED = REPOSITORY / "Tests" / "System" / "known_answers" / "expected"


class DigestTests(InteropCase):
    def selftest(self, program: pathlib.Path) -> str:
        # A program without this command would take the word for an interface's name.
        if "culvert selftest" not in self.output(program, "--help"):
            self.skipTest(f"{program} has no selftest")
        return self.output(program, "selftest")

    def output(self, program: pathlib.Path, word: str) -> str:
        result = subprocess.run([program, word], capture_output=True, text=True, timeout=300)
        self.assertEqual((result.returncode, result.stderr), (0, ""), result.stdout)
        return result.stdout

    def test_the_lines_and_the_digest_are_those_of_the_native_program(self) -> None:
        here = self.selftest(self.settings.program.path)
        self.assertRegex(here.splitlines()[-1], r"\Adigest [0-9a-f]{16,}\Z")
        self.assertEqual(here, self.selftest(NATIVE))

    def test_the_digest_is_what_the_specifications_say(self) -> None:
        """Tests/System/known_answers computes the lines independently."""
        with tempfile.NamedTemporaryFile("w") as file:
            file.write(self.selftest(self.settings.program.path))
            file.flush()
            check = subprocess.run(
                [EXPECTED, file.name], capture_output=True, text=True, timeout=300
            )
        self.assertEqual((check.returncode, check.stdout + check.stderr), (0, ""))
