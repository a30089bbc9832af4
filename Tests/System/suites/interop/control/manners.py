"""How the program behaves to the system that it runs on: ports, addresses, signals, descriptors."""

import contextlib
import fcntl
import os
import pathlib
import signal
import socket
import subprocess
import time

from harness import procfs
from harness.case import InteropCase, culvert_only, each, needs, quick
from harness.lab.control import UAPIConnection, write_file
from harness.lab.node import LOGS, KeyPair, Node, hexadecimal
from harness.waiting import wait_until

PORT = 51001
COMMANDS = (("genkey",), ("genpsk",), ("pubkey",), ("help",), ("forward", "--help"), ("version",),
            ("budget",), ("selftest",))  # fmt: skip


class ConfigurationTests(InteropCase):
    @culvert_only
    def test_R60_showconf_feeds_setconf_with_zones(self) -> None:
        """A zone is shown where the address needs one, and every endpoint is taken back."""
        node = self.node()
        node.start()
        endpoints = ("[::1%lo]:5", "[::1%1]:6", "[fe80::1%lo]:7", "[fe80::2%1]:8",
                     "[::ffff:192.0.2.1]:9", "192.0.2.2:10", "[2001:db8::1]:11")  # fmt: skip
        lines = [f"private_key={hexadecimal(node.keys.private)}"]
        for endpoint in endpoints:
            key = hexadecimal(KeyPair.generate().public)
            lines += [f"public_key={key}", f"endpoint={endpoint}"]
        with UAPIConnection(node.socket_path) as uapi:
            self.assertEqual(uapi.set(*lines), 0)
            shown = [value for key, value in uapi.get() if key == "endpoint"]
        self.assertEqual(
            [value for value in shown if "%" in value], ["[fe80::1%1]:7", "[fe80::2%1]:8"]
        )
        self.assertIn("[::1]:5", shown)
        text = node.wg("showconf", node.interface)
        self.assertIn("[fe80::1%lo]:7", text)
        path = write_file(f"{node.interface}.shown", text)
        node.wg("setconf", node.interface, path)
        again = node.wg("showconf", node.interface)
        self.assertEqual(sorted(again.splitlines()), sorted(text.splitlines()))


