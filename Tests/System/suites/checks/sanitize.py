"""The unit tests under the address and the thread sanitizer, and the program under the latter."""

from harness.command import CheckError, attempt, output_of, run_checks

# Under a sanitizer, an operation takes ten to thirty times as long.
SHORTENED = {"CULVERT_SIMULATION_SEEDS": "6", "REASSEMBLY_STREAMS": "800"}
# LeakSanitizer cannot distinguish leaks from memory that Swift's runtime keeps on purpose.
ADDRESS = {"ASAN_OPTIONS": "detect_leaks=0"}
# After a report the program exits with status 66, which its test counts as a failure.
THREAD = {"TSAN_OPTIONS": "exitcode=66 halt_on_error=0"}


def test_under(sanitizer: str, *options: str, **environment: str) -> str:
    """Build and run the core's unit tests, in a separate build folder."""
    common = ("--scratch-path", f".build-{sanitizer}", f"--sanitize={sanitizer}")
    # Built separately, because the linker warns about every helper of the sanitizer.
    output_of("swift", "build", "--build-tests", *common)
    words = ("swift", "test", "--skip-build", "--quiet", *common)
    printed = output_of(
        *words, "--filter", r"^CulvertTests\.", *options, **SHORTENED, **ADDRESS, **environment
    )
    return printed.strip().splitlines()[-1]


def address() -> str:
    return test_under("address", DOOR_COUNT="10000")


def thread() -> str:
    """Without the trie's tests, which have one thread and take minutes under this sanitizer."""
    return test_under("thread", "--skip", "AllowedIPsTests", DOOR_COUNT="5000")


def workers() -> str:
    """The program with four workers, nested tunnels included.

    For a mutating call on a value behind a pointer, Swift reports to the sanitizer a write of the
    whole value. Here each part of a value has its own lock, so those reports are dropped
    (AnnotateNoOp is a function of the sanitizer); actual loads and stores are still checked.
    """
    output_of(
        *("swift", "build", "-c", "release", "--product", "culvert", "--sanitize=thread"),
        *("--scratch-path", ".build-tsan", "-Xlinker", "--wrap=__tsan_external_write"),
        *("-Xlinker", "--defsym=__wrap___tsan_external_write=AnnotateNoOp"),
    )
    result = attempt(
        *("Tests/System/run", "interop", "--program", ".build-tsan/release/culvert"),
        *("-j", "1", "-k", "workers.*"),
        **THREAD,
    )
    if result.returncode != 0:
        raise CheckError(result.stdout)
    return result.stdout.strip().splitlines()[-1]


def main(arguments: list[str]) -> int:
    checks = {"address": address, "thread": thread, "workers": workers}
    return run_checks(arguments, __doc__, checks)
