"""get and set by raw socket: what is told, and what several clients may do."""

from harness.case import culvert_only, needs, quick
from harness.keys import KeyPair, hexadecimal
from harness.uapi_case import ZERO_KEY, UAPICase


class UAPICommandTests(UAPICase):
    @quick
    def test_get_of_a_fresh_device(self) -> None:
        """No key, no mark, no peers; it may have chosen a port already."""
        device = self.device()
        self.assertEqual(device.get("private_key", ZERO_KEY), ZERO_KEY)
        self.assertEqual(device.get("fwmark", "0"), "0")
        self.assertEqual(self.peers(), {})

    @quick
    @needs("fwmark")
    def test_everything_set_is_told_by_get(self) -> None:
        """Every key of the protocol makes the round trip."""
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
        """Each is answered in its turn, though they arrive together."""
        self.uapi.send("get=1\n\nset=1\nfwmark=7\n\nget=1\n\n")
        replies = [self.uapi.reply() for _ in range(3)]
        self.assertEqual([reply[-1] for reply in replies], [("errno", "0")] * 3)
        self.assertIn(("fwmark", "7"), replies[2])

    def test_a_command_may_arrive_byte_by_byte(self) -> None:
        """What counts is the lines, not the writes they came in."""
        for character in f"set=1\npublic_key={self.peer}\nallowed_ip=10.1.0.0/24\n\n":
            self.uapi.send(character)
        self.assertEqual(self.uapi.reply(), [("errno", "0")])
        self.assertEqual(self.allowed_ips(self.peer), {"10.1.0.0/24"})

    def test_several_connections_at_a_time(self) -> None:
        """A connection left open keeps no other one waiting."""
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

    def test_a_long_line_ends_in_an_error_not_in_a_crash(self) -> None:
        """A line of 200,000 bytes is refused or cut off; the program goes on."""
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
