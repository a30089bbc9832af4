"""Which of the interoperability tests a board runs.

All that depends on the processor, the word size or the kernel's interfaces as the emulator passes
them on. Command lines, error texts and the like are the same on every board: one 64-bit and one
32-bit board run those as well.
"""

import fnmatch

from harness.case import InteropCase
from harness.runner import find_tests, load_tests, short_name

# Every board.
CORE = (
    "ping.*",
    "throughput.*",
    "twins.*",
    "roaming.*",
    "rekey.*",
    "wg_tool.*",
    "wg_quick.*",
    "reconfiguration.DescriptorTests.*",
    "reconfiguration.PeerTests.*",
    "data_path.*",
    "outer_socket.MarkTests.*",
    "uapi_commands.*",
    "nesting.TrafficTests.test_bytes_arrive_unchanged",
    "nesting.TrafficTests.test_ours_as_servers_*",
    "nesting_process.SocketTests.test_wg_shows_each_hop",
    "nesting_process.ConfigurationTests.test_R27_*",
    "forward.DatagramTests.*",
    "forward.NameServerTests.test_dig_is_answered_*",
    "forward.FlowTests.test_a_thousand_clients_in_turn",
)
# The others that say something about a board.
REST = (
    "reconfiguration.*",
    "process.DaemonTests.*",
    "process.ForegroundTests.*",
    "process.EnvironmentTests.*",
    "outer_socket.*",
    "uapi_*",
    "mtu.*",
    "marking.*",
    "nesting.TrafficTests.test_more_hops_*",
    "nesting.TrafficTests.test_ping_tcp_and_udp_*",
    "nesting_twins.*",
    "nesting_fragments.DeepTests.*",
    "nesting_changes.RoamingTests.*",
    "nesting_mtu.*",
    "forward.ClientTests.*",
    "forward.FlowTests.*",
    "forward.ProcessTests.*",
)
FULL_BOARDS = ("aarch64", "armv6")


def tests_of(board: str) -> list[InteropCase]:
    """The board's share of Tests/Interop and what stands in `checks`, the long ones first."""
    patterns = CORE + (REST if board in FULL_BOARDS else ())
    tests = {short_name(test): test for test in find_tests(None, False)}
    names: set[str] = set()
    for pattern in patterns:
        found = fnmatch.filter(tests, pattern)
        assert found, f"no test of Tests/Interop is called {pattern}"
        names.update(found)
    chosen = [test for name, test in tests.items() if name in names]
    own = ("digest", "lacking", "memory")
    return by_length(chosen + [test for name in own for test in load_tests(f"checks.{name}")])


def tests_of_pairs(boards: list[str]) -> list[InteropCase]:
    """Those of checks/neighbours.py whose boards are both wanted."""
    tests = load_tests("checks.neighbours")
    return [test for test in tests if sum(name in test.id() for name in boards) == 2]


def by_length(tests: list[InteropCase]) -> list[InteropCase]:
    return sorted(tests, key=lambda test: not getattr(test.method, "long", False))
