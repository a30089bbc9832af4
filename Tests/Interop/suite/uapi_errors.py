"""What is wrong is answered with its errno, and does no harm."""

import errno
import socket

from harness import procfs
from harness.case import culvert_only, quick
from harness.deadline import wait_until
from harness.uapi import UAPIConnection
from harness.uapi_case import EINVAL, EPROTO, UAPICase


class UAPIErrorTests(UAPICase):
    def refused(self, *lines: str) -> int:
        """The errno of a command on a fresh connection."""
        with UAPIConnection(self.ours.socket_path) as connection:
            return connection.set(*lines)

    @quick
    def test_what_cannot_be_parsed_answers_einval(self) -> None:
        """Each bad value of a device key and of a peer key, one by one."""
        device = ["private_key=ab", f"private_key={'zz' * 32}", "listen_port=65536"]
        device += ["listen_port=-1", "listen_port=a", "listen_port=", "fwmark=4294967296"]
        device += ["fwmark=x", "replace_peers=false", "nonsense=1", f"private_key={'ab' * 33}"]
        for line in device:
            self.assertEqual(self.refused(line), EINVAL, line)
        peer = ["preshared_key=ab", "endpoint=1.2.3.4", "endpoint=1.2.3.4:70000"]
        peer += ["endpoint=example:", "persistent_keepalive_interval=65536"]
        peer += ["persistent_keepalive_interval=x", "allowed_ip=10.0.0.0/33"]
        peer += ["allowed_ip=10.0.0/8", "allowed_ip=fd00::/129", "allowed_ip=x"]
        peer += ["replace_allowed_ips=false", "remove=false", "update_only=false", "nonsense=1"]
        for line in peer:
            self.assertEqual(self.refused(f"public_key={self.peer}", line), EINVAL, line)
        self.assertEqual(self.refused("public_key=ab"), EINVAL)

    @quick
    def test_a_line_without_equals_answers_eproto(self) -> None:
        self.assertEqual(self.refused("listen_port"), EPROTO)

    def test_keys_in_the_wrong_order_are_refused(self) -> None:
        """A peer's key before any peer, a device's key after one."""
        for lines in (("allowed_ip=10.0.0.0/8",), (f"public_key={self.peer}", "listen_port=1")):
            self.assertIn(self.refused(*lines), (EINVAL, EPROTO), lines)

    def test_get_takes_no_arguments(self) -> None:
        with UAPIConnection(self.ours.socket_path) as connection:
            self.assertEqual(connection.command("get=1\nx\n\n"), [("errno", str(EINVAL))])

    @culvert_only
    def test_an_error_changes_nothing_of_that_peer(self) -> None:
        """What stands before the bad line of a peer is not applied either."""
        self.apply(f"public_key={self.peer}", "allowed_ip=10.1.0.0/24")
        lines = ["allowed_ip=10.2.0.0/24", "persistent_keepalive_interval=9", "allowed_ip=x"]
        self.assertEqual(self.refused(f"public_key={self.peer}", *lines), EINVAL)
        self.assertEqual(self.allowed_ips(self.peer), {"10.1.0.0/24"})
        values = self.peers()[self.peer].get("persistent_keepalive_interval", ["0"])
        self.assertEqual(values, ["0"])

    @culvert_only
    def test_an_error_for_a_new_peer_makes_no_peer(self) -> None:
        self.assertEqual(self.refused(f"public_key={self.peer}", "allowed_ip=x"), EINVAL)
        self.assertEqual(self.peers(), {})

    @culvert_only
    def test_a_connection_goes_on_after_an_error(self) -> None:
        """The rest of the bad command, up to the blank line, is passed over."""
        self.assertEqual(self.uapi.set("fwmark=x", "listen_port=40001"), EINVAL)
        self.assertNotEqual(self.device().get("listen_port"), "40001")
        self.apply("listen_port=40002")
        self.assertEqual(self.device()["listen_port"], "40002")

    def test_an_unknown_operation_does_no_harm(self) -> None:
        """An error or a closed connection, and the next client is served."""
        with UAPIConnection(self.ours.socket_path) as connection:
            try:
                self.assertNotEqual(connection.command("frobnicate=1\n\n")[-1], ("errno", "0"))
            except ConnectionError:
                pass
        self.assertEqual(self.peers(), {})

    def test_a_port_in_use_is_an_error_and_the_program_goes_on(self) -> None:
        """EADDRINUSE is told; another port then works."""
        self.ours.bring_up()
        wait_until(lambda: procfs.udp_sockets(self.ours.pid), "open sockets")
        with self.ours.namespace.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
            taken.bind(("0.0.0.0", 40100))
            self.assertEqual(self.refused("listen_port=40100"), -errno.EADDRINUSE)
        self.assertTrue(self.ours.is_running)
        self.assertEqual(self.refused("listen_port=40101"), 0)
        self.assertEqual(self.device()["listen_port"], "40101")
