"""The selection of interoperability tests for each board.

Every board runs the tests that depend on the processor, the word size or the emulated system calls.
Command lines, error texts and the like are the same on all boards; only one 64-bit and one 32-bit
board run those tests.
"""

import fnmatch

from harness.case import InteropCase
from harness.runner import find_tests, load_tests, short_name

OWN = "suites.boards."
# Every board.
CORE = (
    "tunnels.traffic.*",
    "tunnels.networks.RoamingTests.*",
    "tunnels.timers.RekeyTests.*",
    "control.wg.*",
    "control.reconfiguration.DescriptorTests.*",
    "control.reconfiguration.PeerTests.*",
    "tunnels.sockets.MarkTests.*",
    "control.uapi.UAPICommandTests.*",
    "nesting.traffic.TrafficTests.test_bytes_arrive_unchanged",
    "nesting.traffic.TrafficTests.test_ours_as_servers_*",
    "nesting.process.SocketTests.test_wg_shows_each_hop",
    "nesting.process.ConfigurationTests.test_R27_*",
    "forwarding.traffic.DatagramTests.*",
    "forwarding.traffic.NameServerTests.test_dig_is_answered_*",
    "forwarding.flows.FlowTests.test_a_thousand_clients_in_turn",
)
# The others whose result may depend on the board.
REST = (
    "control.reconfiguration.*",
    "control.process.*",
    "tunnels.sockets.[!N]*",
    "control.uapi.*",
    "tunnels.mtu.*",
    "nesting.traffic.TrafficTests.test_more_hops_*",
    "nesting.traffic.TrafficTests.test_ping_tcp_and_udp_*",
    "nesting.traffic.TwinTests.*",
    "nesting.fragments.DeepTests.*",
    "nesting.changes.RoamingTests.*",
    "nesting.mtu.*",
    "forwarding.flows.ClientTests.*",
    "forwarding.flows.FlowTests.*",
    "forwarding.process.ProcessTests.*",
)
FULL_BOARDS = ("aarch64", "armv6")


def tests_of(board: str) -> list[InteropCase]:
    """The interoperability tests of the board, and the tests that exist only for boards."""
    patterns = CORE + (REST if board in FULL_BOARDS else ())
    tests = {short_name(test): test for test in find_tests("interop")}
    names: set[str] = set()
    for pattern in patterns:
        found = fnmatch.filter(tests, pattern)
        assert found, f"no interoperability test is called {pattern}"
        names.update(found)
    chosen = [test for name, test in tests.items() if name in names]
    return chosen + digest_tests() + load_tests(OWN + "memory") + lacking_tests()


def digest_tests() -> list[InteropCase]:
    return load_tests(OWN + "digest")


def lacking_tests() -> list[InteropCase]:
    return [test for test in load_tests(OWN + "tunnels") if "NeighbourTests" not in test.id()]


def tests_of_pairs(boards: list[str]) -> list[InteropCase]:
    """The tests of each pair of these boards."""
    tests = [test for test in load_tests(OWN + "tunnels") if "NeighbourTests" in test.id()]
    return [test for test in tests if sum(name in test.id() for name in boards) == 2]
