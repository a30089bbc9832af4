"""A Debian 12 with systemd as its first process: the unit itself starts the tunnel."""

import pathlib
import shutil
import subprocess
import unittest

from suites.packages import roots, tunnel
from suites.packages.case import PackageCase, program

BOOT = pathlib.Path(__file__).resolve().parents[1] / "boot"
# Exit status of `boot` on a machine that cannot run it.
SKIPPED = 77
# The other end: a device in a namespace of its own, with a program of its own.
PEER = """
ip netns add peer
ip link add out type veth peer name in netns peer
ip address add 198.51.100.1/24 dev out && ip link set out up
ip -n peer address add 198.51.100.2/24 dev in && ip -n peer link set in up
ip netns exec peer unshare -m sh -c 'mount -t tmpfs t /run && exec culvert wg0 \
  --state-dir /run/state --config /root/peer.conf'
"""
PID = "$(systemctl show -P MainPID culvert@wg0)"
# The helper process of the service, and whether it has ended.
HELPER = f"helper=$(cat /proc/{PID}/task/*/children)"
GONE = "! kill -0 $helper 2>/dev/null"
STEPS = {
    "install": "dpkg -i /root/old.deb",
    "enable": "systemctl enable culvert@wg0",
    "peer": PEER,
    "start": "systemctl start culvert@wg0",
    # All of this must be complete when `start` returns.
    "address": "ip -brief address show dev wg0",
    "ping": "ping -c 3 -W 2 10.9.0.2 && ping -c 3 -W 2 fd09::2",
    "status": f"grep -E '^(Cap|NoNewPrivs|Seccomp:)' /proc/{PID}/status",
    "state": "stat -c '%a %s %n' /var/lib/culvert /var/lib/culvert/wg0 /run/wireguard",
    "writing": f"nsenter -m -r -t {PID} touch /etc/mark",
    "sight": f"nsenter -m -r -t {PID} ls /home /dev/net",
    "pid": f"echo {PID}",
    "upgrade": "dpkg -i /root/new.deb",
    "upgraded": f"systemctl is-active culvert@wg0 && echo {PID}",
    "ping-again": "ping -c 3 -W 2 10.9.0.2",
    # A killed service is restarted after 5 s.
    "kill": f"{HELPER}; kill -9 {PID} && sleep 8 && {GONE} && "
    "systemctl is-active culvert@wg0 && ping -c 3 -W 2 10.9.0.2",
    "processes": f"{HELPER}; cat /proc/{PID}/comm; for it in $helper; do cat /proc/$it/comm; done",
    "stop": f"{HELPER}; systemctl stop culvert@wg0 && {GONE} && systemctl is-active culvert@wg0",
    "gone": "ip link show dev wg0",
    "absent": "systemctl start culvert@wg9",
    "wrong": "echo nonsense >/etc/culvert/wg1.conf && systemctl start culvert@wg1",
    "wrong-log": "systemctl stop culvert@wg1; journalctl --no-pager -u culvert@wg1 -o cat",
    "usage": "echo CULVERT_OPTIONS=--nonsense >/etc/default/culvert-wg0; "
    "systemctl start culvert@wg0",
    "options": "echo CULVERT_OPTIONS=--profile tiny --workers 1 >/etc/default/culvert-wg0; "
    "systemctl start culvert@wg0 && ping -c 3 -W 2 10.9.0.2",
    "threads": f"ls /proc/{PID}/task | wc -l",
    "remove": "dpkg -r culvert; systemctl is-active culvert@wg0",
    "purge": "dpkg -P culvert && ls -d /etc/culvert/* /var/lib/culvert",
}


class Boot(PackageCase):
    """One boot; each test examines some of its steps."""

    results: dict[str, tuple[int, str]] = {}
    failure: BaseException | None = None

    def setUp(self):
        if not Boot.results and Boot.failure is None:
            try:
                Boot.results = self.boot()
            except BaseException as error:
                Boot.failure = error
        if Boot.failure is not None:
            raise Boot.failure

    def prepare(self) -> pathlib.Path:
        """A root that runs the steps when it is booted."""
        binary = program("x86_64")
        root = roots.root("amd64")
        for name, version in (("old", {}), ("new", {"VERSION": "99.1"})):
            shutil.copy(self.make("deb", "x86_64", **version), root / f"root/{name}.deb")
        ours, theirs = tunnel.pair(binary, "198.51.100.1", "198.51.100.2")
        (root / "root/peer.conf").write_text(theirs)
        (root / "etc/culvert").mkdir(mode=0o700)
        (root / "etc/culvert/wg0.conf").write_text(ours)
        (root / "etc/culvert/wg0.conf").chmod(0o600)
        (root / "home/mark").touch()
        (root / "root/steps").mkdir()
        script = ""
        for name, command in STEPS.items():
            (root / f"root/steps/{name}").write_text(command)
            script += f"timeout 60 sh /root/steps/{name} >/root/{name}.out 2>&1 </dev/null\n"
            script += f"echo $? >/root/{name}.status\n"
        (root / "root/trial").write_text(script)
        return root

    def boot(self) -> dict[str, tuple[int, str]]:
        root = self.prepare()
        booted = subprocess.run([BOOT, root], capture_output=True, text=True, timeout=240)
        if booted.returncode == SKIPPED:
            raise unittest.SkipTest(booted.stdout.strip())
        console = f"{booted.stdout}{booted.stderr}"
        self.assertEqual(booted.returncode, 0, f"no boot:\n{console}")
        found = {}
        for name in STEPS:
            status, output = (root / f"root/{name}.{end}" for end in ("status", "out"))
            self.assertTrue(status.exists(), f"the boot ended before {name}:\n{console}")
            found[name] = int(status.read_text()), output.read_text().strip()
        return found

    def step(self, name: str, status: int = 0) -> str:
        """What a step has printed; it must have exited with this status."""
        found, text = self.results[name]
        self.assertEqual(found, status, f"{name}:\n{text}")
        return text

    def test_systemd_starts_it(self):
        for name in ("install", "enable", "peer", "start"):
            self.step(name)
        self.assertIn("10.9.0.1/24 fd09::1/64", self.step("address"))
        self.step("ping")

    def test_it_has_the_rights_it_needs_and_no_more(self):
        found = dict(line.split(":\t") for line in self.step("status").splitlines())
        # CAP_NET_BIND_SERVICE and CAP_NET_ADMIN.
        rights = f"{1 << 10 | 1 << 12:016x}"
        self.assertEqual((found["CapEff"], found["CapBnd"]), (rights, rights))
        self.assertEqual((found["NoNewPrivs"], found["Seccomp"]), ("1", "2"))
        self.assertIn("Read-only file system", self.step("writing", 1))
        # There is a file in /home, which the service does not see.
        self.assertEqual(self.step("sight").split(), ["/dev/net:", "tun", "/home:"])

    def test_state_is_kept_privately(self):
        lines = self.step("state").splitlines()
        self.assertEqual([line.split()[0] for line in lines], ["700", "600", "700"])
        self.assertEqual(lines[1].split()[1], "12")

    def test_an_upgrade_starts_what_runs_again(self):
        self.step("upgrade")
        state, pid = self.step("upgraded").split()
        self.assertEqual(state, "active")
        self.assertNotEqual(pid, self.step("pid"))
        self.step("ping-again")

    def test_it_comes_back_when_it_is_killed(self):
        self.step("kill")

    def test_systemd_knows_which_process_is_the_tunnel(self):
        self.assertEqual(self.step("processes").split(), ["culvert", "culvert-helper"])

    def test_it_stops(self):
        self.assertEqual(self.step("stop", 3), "inactive")
        self.step("gone", 1)

    def test_a_wrong_file_fails_at_start_and_says_why(self):
        self.step("absent", 1)
        self.step("wrong", 1)
        self.assertIn("/etc/culvert/wg1.conf:1: ", self.step("wrong-log"))

    def test_options_are_taken_from_the_file(self):
        self.step("usage", 1)
        self.step("options")
        self.assertEqual(self.step("threads"), "1")

    def test_removal_stops_it(self):
        self.assertIn("inactive", self.step("remove", 3).splitlines()[-1])
        left = [line for line in self.step("purge", 2).splitlines() if line.startswith("/")]
        self.assertEqual(left, ["/etc/culvert/wg0.conf", "/etc/culvert/wg1.conf"])
