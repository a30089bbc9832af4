"""Starting and ending: daemon or foreground, signals, a removed device or socket."""

import io
import os
import pathlib
import signal
import socket
import struct
import time
from fcntl import ioctl

from harness import procfs
from harness.case import InteropCase, culvert_only, each, quick
from harness.lab.control import UAPIConnection
from harness.lab.node import SOCKETS, Node
from harness.traffic.ping import ping
from harness.waiting import wait_until

TUNSETIFF, IFF_TUN, IFF_NO_PI, IFF_VNET_HDR = 0x400454CA, 0x0001, 0x1000, 0x4000
ENDINGS = (signal.SIGTERM, signal.SIGINT)


class DaemonTests(InteropCase):
    @quick
    def test_returns_once_interface_and_socket_are_there(self) -> None:
        """Without -f the command exits with 0, and the interface is ready."""
        node = self.node()
        result = node.namespace.attempt(*self.daemon(node))
        self.assertEqual(result.returncode, 0, result.stderr)
        self.assertIn(node.interface, node.namespace.interfaces())
        with UAPIConnection(node.socket_path) as connection:
            self.assertEqual(connection.command("get=1\n\n")[-1], ("errno", "0"))

    @quick
    @each(number=ENDINGS)
    def test_the_daemon_ends_on_a_signal(self, number: int) -> None:
        """It exits, and removes its socket and interface."""
        node = self.node()
        self.assertEqual(node.namespace.attempt(*self.daemon(node)).returncode, 0)
        with UAPIConnection(node.socket_path) as connection:
            connection.get()
        (pid,) = node.namespace.pids()
        os.kill(pid, number)
        wait_until(lambda: not procfs.is_running(pid), "the daemon's end")
        self.assertEqual(node.leftovers(), [])

    @culvert_only
    def test_the_daemon_heeds_signals_at_once(self) -> None:
        """It is ready when the command returns: a signal at once leaves nothing behind."""
        node = self.node()
        self.assertEqual(node.namespace.attempt(*self.daemon(node)).returncode, 0)
        (pid,) = node.namespace.pids()
        os.kill(pid, signal.SIGTERM)
        wait_until(lambda: not procfs.is_running(pid), "the daemon's end")
        self.assertEqual(node.leftovers(), [])

    @culvert_only
    def test_the_daemon_is_detached(self) -> None:
        """It has a session of its own and none of our descriptors."""
        node = self.node()
        self.assertEqual(node.namespace.attempt(*self.daemon(node)).returncode, 0)
        (pid,) = node.namespace.pids()
        self.assertNotEqual(os.getsid(pid), os.getsid(0))
        inputs = [procfs.descriptors(pid).get(number) for number in (0, 1, 2)]
        self.assertFalse(any("pipe" in (target or "") for target in inputs), inputs)

    def daemon(self, node: Node) -> list[str]:
        return self.settings.program.command(node.interface, foreground=False)


class ForegroundTests(InteropCase):
    @quick
    @each(number=ENDINGS)
    def test_ends_cleanly_on_a_signal(self, number: int) -> None:
        """Status 0, no socket, no interface, even under traffic."""
        pair = self.pair()
        pair.handshake()
        self.assertEqual(pair.ours.stop(number), 0)
        self.assertEqual(pair.ours.leftovers(), [])

    @culvert_only
    def test_a_signal_during_the_start_leaves_nothing_behind(self) -> None:
        """As soon as the socket's file exists, the program removes it when it ends."""
        for _ in range(10):
            node = self.node()
            node.process = node.namespace.start(*self.settings.program.command(node.interface))
            end = time.monotonic() + 15
            # Without sleeping, which would notice the file too late.
            while not os.path.lexists(node.socket_path) and time.monotonic() < end:
                pass
            self.assertEqual(node.stop(), 0)
            self.assertEqual(node.leftovers(), [])

    def test_wg_process_foreground(self) -> None:
        """The environment can select the foreground, like -f."""
        node = self.node()
        command = self.settings.program.command(node.interface, foreground=False)
        environment = dict(os.environ, WG_PROCESS_FOREGROUND="1")
        node.process = node.namespace.start(*command, env=environment, stderr=-3)
        wait_until(lambda: node.is_ready, "readiness")
        self.assertIsNone(node.process.poll())

    @quick
    def test_R25_deleting_the_interface_ends_the_process(self) -> None:
        node = self.started()
        node.bring_up()
        node.namespace.ip(f"link del {node.interface}")
        self.assertEqual(node.wait(), 0)
        self.assertEqual(node.leftovers(), [])

    @quick
    def test_R25_deleting_the_socket_ends_the_process(self) -> None:
        node = self.started()
        node.socket_path.unlink()
        self.assertEqual(node.wait(), 0)
        self.assertEqual(node.leftovers(), [])

    @quick
    def test_a_busy_interface_is_refused(self) -> None:
        """Status 1, and the first process continues."""
        node = self.started()
        result = node.namespace.attempt(*self.settings.program.command(node.interface), seconds=15)
        self.assertEqual(result.returncode, 1, result.stderr)
        with UAPIConnection(node.socket_path) as connection:
            self.assertEqual(connection.command("get=1\n\n")[-1], ("errno", "0"))

    @culvert_only
    def test_a_busy_interface_is_told_in_one_line(self) -> None:
        """Also if another program created it: here ip(8) creates the device."""
        node = self.node()
        node.namespace.ip(f"link add {node.interface} type veth peer name other")
        result = node.namespace.attempt(*self.settings.program.command(node.interface), seconds=15)
        self.assertEqual(result.returncode, 1)
        self.assertEqual(len(result.stderr.splitlines()), 1, result.stderr)
        self.assertIn(node.interface, result.stderr)
        node.namespace.ip(f"link del {node.interface}")

    def test_impossible_names_are_refused(self) -> None:
        """Too long by one, or not a valid file name: status 1, and no interface."""
        for name in ("sixteen_bytes_it", "with/slash"):
            self.check_refused(name)

    @culvert_only
    def test_an_empty_name_is_refused(self) -> None:
        """The kernel would choose a name, which the user did not ask for."""
        self.check_refused("")

    def check_refused(self, name: str) -> None:
        node = self.node()
        result = node.namespace.attempt(str(self.settings.program.path), "-f", name, seconds=15)
        self.assertNotEqual(result.returncode, 0)
        self.assertEqual(node.namespace.interfaces(), {"lo"})

    def test_without_arguments_it_says_how_it_is_used(self) -> None:
        node = self.node()
        result = node.namespace.attempt(str(self.settings.program.path), seconds=15)
        self.assertIn("usage", (result.stdout + result.stderr).lower())
        self.assertEqual(node.namespace.interfaces(), {"lo"})

    def started(self) -> Node:
        """A node that is ready: a deletion before that would only prevent its start."""
        node = self.node()
        node.start()
        with UAPIConnection(node.socket_path) as connection:
            connection.get()
        return node


class EnvironmentTests(InteropCase):
    @each(offloads=(False, True))
    def test_WG_TUN_FD_is_used(self, offloads: bool) -> None:
        """The interface is that of the descriptor, created with or without a packet header."""
        node = self.node()
        with open_tun(node, IFF_VNET_HDR if offloads else 0) as tun:
            number = tun.fileno()
            node.start(environment={"WG_TUN_FD": str(number)}, pass_fds=(number,))
        self.check_tunnel_answers(node)

    def test_WG_UAPI_FD_is_used(self) -> None:
        """The program accepts connections at the socket that it inherited."""
        node = self.node()
        os.makedirs(SOCKETS, mode=0o700, exist_ok=True)
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(node.socket_path))
            listener.listen(8)
            inode = node.socket_path.lstat().st_ino
            number = listener.fileno()
            node.start(environment={"WG_UAPI_FD": str(number)}, pass_fds=(number,))
        self.assertEqual(node.socket_path.lstat().st_ino, inode, "the socket file was replaced")
        self.check_tunnel_answers(node)

    @culvert_only
    @each(name=("WG_TUN_FD", "WG_UAPI_FD"))
    def test_a_bad_descriptor_is_refused(self, name: str) -> None:
        """A closed descriptor, or text that is not a number, ends the program with status 1."""
        for value in ("977", "x"):
            node = self.node()
            environment = dict(os.environ, **{name: value})
            command = self.settings.program.command(node.interface)
            result = node.namespace.attempt(*command, seconds=15, env=environment)
            self.assertEqual(result.returncode, 1, f"{name}={value}")
            self.assertEqual(node.leftovers(), [])

    @each(level=("silent", "error", "verbose"))
    def test_LOG_LEVEL(self, level: str) -> None:
        """At silent nothing is logged in normal operation; at verbose a handshake is."""
        pair = self.pair(level=level)
        pair.handshake()
        log = pair.ours.log.lower()
        self.assertEqual("handshake" in log, level == "verbose", log)

    def check_tunnel_answers(self, node: Node) -> None:
        with UAPIConnection(node.socket_path) as connection:
            self.assertEqual(connection.command("get=1\n\n")[-1], ("errno", "0"))
        node.bring_up()
        node.set("listen-port", "40111")
        self.assertEqual(node.wg("show", node.interface, "listen-port").strip(), "40111")
        self.assertEqual(ping(node, node.inner4, count=1).received, 1)


def open_tun(node: Node, flags: int) -> io.RawIOBase:
    """A TUN device as a service manager would pass it."""
    with node.namespace.entered():
        tun = pathlib.Path("/dev/net/tun").open("r+b", buffering=0)
        flags |= IFF_TUN | IFF_NO_PI
        ioctl(tun, TUNSETIFF, struct.pack("16sH22x", node.interface.encode(), flags))
    return tun
