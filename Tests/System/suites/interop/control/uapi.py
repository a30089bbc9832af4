"""The configuration protocol on its socket: file, commands, rules and errors."""

import errno
import os
import select
import socket
import stat
import time

from harness import procfs
from harness.case import EINVAL, EPROTO, ZERO_KEY, InteropCase, UAPICase, culvert_only, needs, quick
from harness.lab.control import UAPIConnection
from harness.lab.node import SOCKETS, KeyPair, Node, hexadecimal
from harness.waiting import wait_until


class UAPISocketTests(InteropCase):
    @quick
    def test_the_socket_is_for_root_alone(self) -> None:
        """Only the owner may connect."""
        node = self.started()
        mode = stat.S_IMODE(os.stat(node.socket_path).st_mode)
        self.assertEqual(mode & 0o077, 0, oct(mode))

    @culvert_only
    def test_socket_mode_0600(self) -> None:
        self.assertEqual(stat.S_IMODE(os.stat(self.started().socket_path).st_mode), 0o600)

    @culvert_only
    def test_directory_mode_0700(self) -> None:
        """In a separate mount namespace, where the directory does not exist yet."""
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


# get and set, and several clients at once.


class UAPICommandTests(UAPICase):
    @quick
    def test_get_of_a_fresh_device(self) -> None:
        """No key, no mark, no peers; it may have chosen a port."""
        device = self.device()
        self.assertEqual(device.get("private_key", ZERO_KEY), ZERO_KEY)
        self.assertEqual(device.get("fwmark", "0"), "0")
        self.assertEqual(self.peers(), {})

    @quick
    @needs("fwmark")
    def test_everything_set_is_told_by_get(self) -> None:
        """Every key of the protocol is read back as it was set."""
        private = hexadecimal(KeyPair.generate().private)
        self.apply(
            f"private_key={private}",
            "listen_port=40123",
            "fwmark=4660",
            f"public_key={self.peer}",
            f"preshared_key={'ab' * 32}",
            "endpoint=[2001:db8::77]:5555",
            "persistent_keepalive_interval=25",
            "allowed_ip=10.20.0.0/16",
            "allowed_ip=fd00:20::/64",
        )
        self.assertEqual(self.device()["private_key"], private)
        self.assertEqual(self.device()["listen_port"], "40123")
        self.assertEqual(self.device()["fwmark"], "4660")
        peer = self.peers()[self.peer]
        self.assertEqual(peer["preshared_key"], ["ab" * 32])
        self.assertEqual(peer["endpoint"], ["[2001:db8::77]:5555"])
        self.assertEqual(peer["persistent_keepalive_interval"], ["25"])
        self.assertEqual(set(peer["allowed_ip"]), {"10.20.0.0/16", "fd00:20::/64"})
        for counter in ("rx_bytes", "tx_bytes", "last_handshake_time_sec"):
            self.assertEqual(peer[counter], ["0"], counter)
        self.assertEqual(peer["last_handshake_time_nsec"], ["0"])
        self.assertEqual(peer["protocol_version"], ["1"])

    @quick
    def test_several_commands_on_one_connection(self) -> None:
        """Sets and gets alternate on a connection."""
        for number in range(20):
            self.apply(f"listen_port={40200 + number}")
            self.assertEqual(self.device()["listen_port"], str(40200 + number))

    @culvert_only
    @needs("fwmark")
    def test_several_commands_in_one_write(self) -> None:
        """Each is answered, in order, although they arrive together."""
        self.uapi.send("get=1\n\nset=1\nfwmark=7\n\nget=1\n\n")
        replies = [self.uapi.reply() for _ in range(3)]
        self.assertEqual([reply[-1] for reply in replies], [("errno", "0")] * 3)
        self.assertIn(("fwmark", "7"), replies[2])

    def test_a_command_may_arrive_byte_by_byte(self) -> None:
        """Lines may be split into writes in any way."""
        for character in f"set=1\npublic_key={self.peer}\nallowed_ip=10.1.0.0/24\n\n":
            self.uapi.send(character)
        self.assertEqual(self.uapi.reply(), [("errno", "0")])
        self.assertEqual(self.allowed_ips(self.peer), {"10.1.0.0/24"})

    def test_several_connections_at_a_time(self) -> None:
        """An open connection does not delay another one."""
        others = [self.connect() for _ in range(5)]
        for connection in reversed(others):
            self.assertEqual(connection.command("get=1\n\n")[-1], ("errno", "0"))

    def test_half_a_command_changes_nothing_and_blocks_nobody(self) -> None:
        """A client that dies in the middle of a line leaves the device as it was."""
        broken = self.connect()
        broken.send(f"set=1\npublic_key={self.peer}\nallowed_ip=10.1.0")
        broken.socket.close()
        other = self.connect()
        self.assertEqual(other.command("get=1\n\n")[-1], ("errno", "0"))
        self.assertNotIn("10.1.0.0/24", str(self.peers()))

    @culvert_only
    def test_R56_a_client_that_stops_half_way_is_closed(self) -> None:
        """After ten seconds; meanwhile eight such clients do not lock others out."""
        stopped = [self.connect() for _ in range(8)]
        begin = time.monotonic()
        for connection in stopped:
            connection.send("get=1\n")
        time.sleep(0.3)  # until all of it has been read
        # The ninth waits for a second, until it may take the place of another.
        self.assertEqual(self.connect().command("get=1\n\n")[-1], ("errno", "0"))
        self.assertLess(time.monotonic() - begin, 5)
        ends = []
        rest = {connection.socket for connection in stopped}
        while rest:
            for ended in select.select(list(rest), [], [], 15)[0]:
                self.assertEqual(ended.recv(1), b"")
                ends.append(time.monotonic() - begin)
                rest.remove(ended)
        self.assertTrue(1 <= ends[0] < 5 and ends[1] > 9 and ends[-1] < 13, ends)

    @culvert_only
    def test_R56_a_set_that_ends_with_the_stream_is_answered(self) -> None:
        """Without a blank line at its end."""
        connection = self.connect()
        connection.send(f"set=1\npublic_key={self.peer}\nallowed_ip=10.1.0.0/24\n")
        connection.socket.shutdown(socket.SHUT_WR)
        self.assertEqual(connection.reply(), [("errno", "0")])
        self.assertEqual(connection.socket.recv(1), b"")
        self.assertEqual(self.allowed_ips(self.peer), {"10.1.0.0/24"})

    def test_a_long_line_ends_in_an_error_not_in_a_crash(self) -> None:
        """A line of 200,000 bytes is refused or cut off; the program continues."""
        broken = self.connect()
        try:
            broken.send("set=1\nprivate_key=" + "a" * 200_000 + "\n\n")
            self.assertNotEqual(broken.reply()[-1], ("errno", "0"))
        except ConnectionError:
            pass
        other = self.connect()
        self.assertEqual(other.command("get=1\n\n")[-1], ("errno", "0"))

    def test_an_empty_set_changes_nothing(self) -> None:
        self.apply(f"public_key={self.peer}", "allowed_ip=10.1.0.0/24")
        before = self.uapi.get()
        self.apply()
        self.assertEqual(self.uapi.get(), before)


# The protocol's rules for keys, peers and allowed IPs.


class UAPIRuleTests(UAPICase):
    @quick
    def test_zero_private_key_unsets(self) -> None:
        self.apply(f"private_key={hexadecimal(KeyPair.generate().private)}")
        self.apply(f"private_key={ZERO_KEY}")
        self.assertEqual(self.device().get("private_key", ZERO_KEY), ZERO_KEY)

    def test_zero_preshared_key_means_none(self) -> None:
        self.apply(f"public_key={self.peer}", f"preshared_key={'ab' * 32}")
        self.apply(f"public_key={self.peer}", f"preshared_key={ZERO_KEY}")
        self.assertEqual(self.peers()[self.peer].get("preshared_key", [ZERO_KEY]), [ZERO_KEY])

    def test_a_peer_with_the_devices_own_key_is_ignored(self) -> None:
        own = KeyPair.generate()
        self.apply(f"private_key={hexadecimal(own.private)}")
        self.apply(
            f"public_key={hexadecimal(own.public)}",
            "allowed_ip=10.1.0.0/24",
            f"public_key={self.peer}",
            "allowed_ip=10.2.0.0/24",
        )
        self.assertEqual(set(self.peers()), {self.peer})
        self.assertEqual(self.allowed_ips(self.peer), {"10.2.0.0/24"})

    def test_setting_the_private_key_of_a_peer_drops_that_peer(self) -> None:
        own = KeyPair.generate()
        self.apply(f"public_key={hexadecimal(own.public)}", f"public_key={self.peer}")
        self.apply(f"private_key={hexadecimal(own.private)}")
        self.assertEqual(set(self.peers()), {self.peer})

    def test_a_peer_before_the_private_key(self) -> None:
        self.apply(f"public_key={self.peer}", "allowed_ip=10.1.0.0/24")
        self.apply(f"private_key={hexadecimal(KeyPair.generate().private)}")
        self.assertEqual(self.allowed_ips(self.peer), {"10.1.0.0/24"})

    def test_replace_peers(self) -> None:
        other = hexadecimal(KeyPair.generate().public)
        self.apply(f"public_key={self.peer}")
        self.apply("replace_peers=true", f"public_key={other}")
        self.assertEqual(set(self.peers()), {other})

    def test_remove(self) -> None:
        self.apply(f"public_key={self.peer}", "allowed_ip=10.1.0.0/24")
        self.apply(f"public_key={self.peer}", "remove=true")
        self.assertEqual(self.peers(), {})
        self.apply(f"public_key={self.peer}", "remove=true")  # of an unknown peer: nothing to do
        self.assertEqual(self.peers(), {})

    def test_update_only(self) -> None:
        """An unknown peer is not created; a known one is changed."""
        self.apply(f"public_key={self.peer}", "update_only=true", "allowed_ip=10.1.0.0/24")
        self.assertEqual(self.peers(), {})
        self.apply(f"public_key={self.peer}")
        self.apply(f"public_key={self.peer}", "update_only=true", "allowed_ip=10.1.0.0/24")
        self.assertEqual(self.allowed_ips(self.peer), {"10.1.0.0/24"})

    def test_replace_allowed_ips(self) -> None:
        self.apply(f"public_key={self.peer}", "allowed_ip=10.1.0.0/24")
        self.apply(f"public_key={self.peer}", "allowed_ip=10.2.0.0/24")
        self.assertEqual(self.allowed_ips(self.peer), {"10.1.0.0/24", "10.2.0.0/24"})
        self.apply(f"public_key={self.peer}", "replace_allowed_ips=true", "allowed_ip=10.3.0.0/24")
        self.assertEqual(self.allowed_ips(self.peer), {"10.3.0.0/24"})

    def test_an_allowed_ip_moves_to_another_peer(self) -> None:
        other = hexadecimal(KeyPair.generate().public)
        self.apply(f"public_key={self.peer}", "allowed_ip=10.1.0.0/24", "allowed_ip=10.2.0.0/24")
        self.apply(f"public_key={other}", "allowed_ip=10.1.0.0/24")
        self.assertEqual(self.allowed_ips(self.peer), {"10.2.0.0/24"})
        self.assertEqual(self.allowed_ips(other), {"10.1.0.0/24"})

    def test_a_minus_removes_an_allowed_ip(self) -> None:
        """Of this peer only: the same prefix of another one stays."""
        other = hexadecimal(KeyPair.generate().public)
        self.apply(f"public_key={self.peer}", "allowed_ip=10.1.0.0/24", "allowed_ip=fd00::/64")
        self.apply(f"public_key={other}", "allowed_ip=10.9.0.0/24", "allowed_ip=-10.1.0.0/24")
        self.assertEqual(self.allowed_ips(self.peer), {"10.1.0.0/24", "fd00::/64"})
        self.apply(f"public_key={self.peer}", "allowed_ip=-10.1.0.0/24", "allowed_ip=-fd00::/64")
        self.assertEqual(self.allowed_ips(self.peer), set())
        self.assertEqual(self.allowed_ips(other), {"10.9.0.0/24"})

    def test_host_bits_of_an_allowed_ip_are_cleared(self) -> None:
        self.apply(f"public_key={self.peer}", "allowed_ip=10.1.2.3/16", "allowed_ip=0.0.0.0/0")
        self.assertEqual(self.allowed_ips(self.peer), {"10.1.0.0/16", "0.0.0.0/0"})

    def test_protocol_version(self) -> None:
        self.apply(f"public_key={self.peer}", "protocol_version=1")
        self.assertEqual(self.uapi.set(f"public_key={self.peer}", "protocol_version=2"), EINVAL)

    @needs("fwmark")
    def test_fwmark_zero_and_empty(self) -> None:
        self.apply("fwmark=4660")
        self.apply("fwmark=0")
        self.assertEqual(self.device().get("fwmark", "0"), "0")

    def test_a_keepalive_of_zero_turns_it_off(self) -> None:
        self.apply(f"public_key={self.peer}", "persistent_keepalive_interval=25")
        self.apply(f"public_key={self.peer}", "persistent_keepalive_interval=0")
        values = self.peers()[self.peer].get("persistent_keepalive_interval", ["0"])
        self.assertEqual(values, ["0"])


# Errors are answered with their errno, and change nothing else.


class UAPIErrorTests(UAPICase):
    def refused(self, *lines: str) -> int:
        """The errno of a command on a fresh connection."""
        with UAPIConnection(self.ours.socket_path) as connection:
            return connection.set(*lines)

    @quick
    def test_what_cannot_be_parsed_answers_einval(self) -> None:
        """One bad value at a time, of a device key or of a peer key."""
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
        """The lines before the bad line of a peer are not applied either."""
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
        """The rest of the bad command, up to the blank line, is skipped."""
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
        """EADDRINUSE is returned; another port then works."""
        self.ours.bring_up()
        wait_until(lambda: procfs.udp_sockets(self.ours.pid), "open sockets")
        with self.ours.namespace.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
            taken.bind(("0.0.0.0", 40100))
            self.assertEqual(self.refused("listen_port=40100"), -errno.EADDRINUSE)
        self.assertTrue(self.ours.is_running)
        self.assertEqual(self.refused("listen_port=40101"), 0)
        self.assertEqual(self.device()["listen_port"], "40101")
