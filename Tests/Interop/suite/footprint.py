"""Memory stays within its promise, and an idle tunnel never wakes."""

import time

from harness import procfs
from harness.case import InteropCase, culvert_only, each, heavy, long
from harness.traffic import iperf

LIMITS = {"standard": 8 << 20, "tiny": 2 << 20}  # bytes of resident memory
QUIET = 30  # seconds after the last packet until keepalive and handshake timers have run out
WATCHED = 10


class MemoryTests(InteropCase):
    @culvert_only
    @heavy
    @each(profile=tuple(LIMITS))
    def test_resident_memory_under_load(self, profile: str) -> None:
        """The greatest resident memory after TCP and UDP in both directions."""
        pair = self.pair(profile=profile)
        pair.handshake()
        for reverse in (False, True):
            iperf(pair.ours, pair.theirs, pair.theirs.inner4, reverse=reverse)
            iperf(pair.ours, pair.theirs, pair.theirs.inner6, udp_rate="100M", reverse=reverse)
        program = self.settings.program
        if program.is_static:
            used = pair.ours.peak_memory
        else:
            # Of a build with Swift's runtime in shared libraries, what it takes for itself.
            used = procfs.anonymous_memory(pair.ours.pid)
        self.assertLess(used, LIMITS[profile])


class IdleTests(InteropCase):
    @culvert_only
    @long
    def test_an_idle_tunnel_with_a_session_never_wakes(self) -> None:
        """No thread wakes in ten seconds, once the session's own timers have run out."""
        pair = self.pair(host_ipv6=False)  # IPv6 multicasts of its own accord
        pair.handshake()
        time.sleep(QUIET)
        self.check_asleep(pair.ours.pid)

    @culvert_only
    @long
    def test_an_idle_tunnel_without_a_session_never_wakes(self) -> None:
        """Configured, up, and waiting to be called."""
        pair = self.pair("responder", host_ipv6=False)
        time.sleep(3)
        self.check_asleep(pair.ours.pid)

    def check_asleep(self, pid: int) -> None:
        before = procfs.wake_ups(pid), procfs.cpu_seconds(pid)
        time.sleep(WATCHED)
        self.assertEqual((procfs.wake_ups(pid), procfs.cpu_seconds(pid)), before)
