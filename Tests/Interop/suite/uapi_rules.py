"""The protocol's rules for keys, peers and allowed IPs."""

from harness.case import needs, quick
from harness.keys import KeyPair, hexadecimal
from harness.uapi_case import EINVAL, ZERO_KEY, UAPICase


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
        """An unknown peer is not made; a known one is changed."""
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
