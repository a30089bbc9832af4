"""The socket file: its modes, and what stands at its place already."""

import os
import socket
import stat

from harness.case import InteropCase, culvert_only, quick
from harness.deadline import wait_until
from harness.node import SOCKETS, Node
from harness.uapi import UAPIConnection


class UAPISocketTests(InteropCase):
    @quick
    def test_the_socket_is_for_root_alone(self) -> None:
        """Nobody but the owner may connect."""
        node = self.started()
        mode = stat.S_IMODE(os.stat(node.socket_path).st_mode)
        self.assertEqual(mode & 0o077, 0, oct(mode))

    @culvert_only
    def test_socket_mode_0600(self) -> None:
        self.assertEqual(stat.S_IMODE(os.stat(self.started().socket_path).st_mode), 0o600)

    @culvert_only
    def test_directory_mode_0700(self) -> None:
        """Seen in a mount namespace of its own, where the directory is not there before."""
        node = self.node()
        command = " ".join(self.settings.program.command(node.interface))
        script = f"mount -t tmpfs none /run && exec {command}"
        process = node.namespace.start("unshare", "--mount", "sh", "-c", script)
        directory = f"/proc/{process.pid}/root/run/wireguard"
        wait_until(lambda: os.path.exists(f"{directory}/{node.interface}.sock"), "the socket")
        self.assertEqual(stat.S_IMODE(os.stat(directory).st_mode), 0o700)

    @quick
    def test_a_stale_socket_is_replaced(self) -> None:
        """A file left by a process that died is no obstacle."""
        node = self.node()
        os.makedirs(SOCKETS, mode=0o700, exist_ok=True)
        with socket.socket(socket.AF_UNIX) as stale:
            stale.bind(str(node.socket_path))
        node.start()
        with UAPIConnection(node.socket_path) as connection:
            self.assertEqual(connection.command("get=1\n\n")[-1], ("errno", "0"))

    @quick
    def test_a_live_socket_is_refused(self) -> None:
        """Two processes of one interface name, in two namespaces, share no socket."""
        node = self.started()
        other = self.lab.namespace("second")
        command = self.settings.program.command(node.interface)
        result = other.attempt(*command, seconds=15)
        self.assertEqual(result.returncode, 1, result.stderr)
        with UAPIConnection(node.socket_path) as connection:
            self.assertEqual(connection.command("get=1\n\n")[-1], ("errno", "0"))

    def started(self) -> Node:
        node = self.node()
        node.start()
        return node
