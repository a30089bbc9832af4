"""systemd understands the unit, and the program works within its restrictions."""

import os
import re
import shutil
import signal
import subprocess
import time

from suites.packages import roots, tunnel, unit
from suites.packages.case import PackageCase, need, program


class Service(PackageCase):
    def setUp(self):
        self.binary = program("x86_64")
        self.chroot = roots.Chroot("amd64")
        self.addCleanup(self.chroot.close)
        deb = self.make("deb", "x86_64")
        shutil.copy(deb, self.chroot.path / "tmp")
        self.inside(self.chroot, "dpkg", "-i", f"/tmp/{deb.name}")
        ours, _ = tunnel.pair(self.binary, "198.51.100.1", "198.51.100.2")
        self.config = self.chroot.path / "etc/culvert/wg0.conf"
        self.config.write_text(ours)
        self.config.chmod(0o600)

    def test_systemd_understands_every_word(self):
        # It prints nothing about a valid unit, and continues after settings that it does not know.
        said = self.inside(
            self.chroot, "systemd-analyze", "verify", "--man=no", "culvert@wg0.service"
        )
        self.assertEqual([line for line in said.splitlines() if "culvert" in line], [])
        broken = self.chroot.path / "usr/lib/systemd/system/culvert@.service"
        broken.write_text(broken.read_text().replace("ProtectHome=yes", "ProtectHomes=yes"))
        said = self.inside(
            self.chroot, "systemd-analyze", "verify", "--man=no", "culvert@wg0.service"
        )
        self.assertIn("ProtectHomes", said)

    def test_little_is_exposed(self):
        # In tenths; 100 is a service without any restriction.
        self.inside(
            self.chroot,
            *("systemd-analyze", "security", "--offline=true", "--threshold=25"),
            "culvert@wg0.service",
        )

    def restricted(self, *before: str) -> subprocess.Popen:
        """The unit's command with the unit's rights and environment."""
        rights = ",".join(
            f"+{name.removeprefix('CAP_').lower()}" for name in unit.words("CapabilityBoundingSet")
        )
        self.assertIn("net_admin", rights)
        command = ["chroot", self.chroot.path, "setpriv", "--no-new-privs"]
        command += ["--bounding-set", f"-all,{rights}", "--inh-caps", f"-all,{rights}"]
        # chroot(8) needs rights that the unit forbids, so they are dropped inside.
        program, *words = unit.command("wg0")
        return subprocess.Popen(
            [*before, *command, program, "--foreground", *words],
            env={"PATH": os.environ["PATH"]} | unit.environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def wait_for_address(self, process: subprocess.Popen) -> None:
        for _ in range(200):
            if process.poll() is not None:
                self.fail(f"it ended:\n{process.stdout.read()}")
            shown = subprocess.run(
                ["ip", "-brief", "address", "show", "dev", "wg0"], capture_output=True, text=True
            )
            if "fd09::1/64" in shown.stdout:
                return
            time.sleep(0.05)
        process.kill()
        self.fail(f"no address:\n{process.stdout.read()}")

    def test_it_starts_with_the_units_rights_alone(self):
        process = self.restricted()
        self.wait_for_address(process)
        socket = self.chroot.path / "run/wireguard/wg0.sock"
        self.assertEqual(socket.stat().st_mode & 0o777, 0o600)
        self.assertEqual(socket.parent.stat().st_mode & 0o777, 0o700)
        process.send_signal(signal.SIGTERM)
        said, _ = process.communicate(timeout=10)
        self.assertEqual((process.returncode, said), (0, ""))
        self.assertFalse(socket.exists())
        self.output("ip", "link", "show", "dev", "wg0", status=1)

    def test_it_calls_nothing_that_the_unit_forbids(self):
        need("strace")
        need("systemd-analyze", "systemd")
        trace = roots.SCRATCH / "trace"
        process = self.restricted("strace", "-f", "-qq", "-o", str(trace))
        self.wait_for_address(process)
        # Traffic through the tunnel, and a request for its state.
        subprocess.run(["ping", "-c", "2", "-W", "1", "10.9.0.2"], capture_output=True)
        (child,) = subprocess.check_output(["ps", "-o", "pid=", "-C", "culvert"], text=True).split()
        os.kill(int(child), signal.SIGUSR1)
        time.sleep(0.5)
        os.kill(int(child), signal.SIGTERM)
        process.communicate(timeout=20)
        lines = trace.read_text().splitlines()
        # setpriv ends with the last execve.
        start = max(index for index, line in enumerate(lines) if " execve(" in line)
        used = set(re.findall(r"(?m)^\d+ +(\w+)\(", "\n".join(lines[start:])))
        self.assertLess({"ioctl", "epoll_pwait", "socket", "unlink"}, used)
        self.assertEqual(used - unit.allowed_system_calls(), set())
