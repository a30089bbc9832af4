"""One process for all hops: its sockets, its end, its files, and its error messages."""

import contextlib
import os
import signal
import stat
import time

from harness import procfs
from harness.case import NestingCase, culvert_only, each, long, quick
from harness.lab.chain import Chain, Shape
from harness.lab.control import EVERYTHING, UAPIConnection, wg_file, write_file
from harness.lab.node import LOGS, SOCKETS, KeyPair, NestedNode
from harness.traffic.capture import Capture
from harness.traffic.datagrams import datagrams
from harness.waiting import wait_until

LONGEST_NAME = 13  # with "-1" to "-9" it is still a valid interface name
QUIET, WATCHED = 60, 8  # seconds until the timers of all hops have expired; seconds of watching


class SocketTests(NestingCase):
    @quick
    def test_wg_shows_each_hop(self) -> None:
        """As separate interfaces, each with its peer and its handshake."""
        chain = self.chain(4, 6, 4)
        interfaces = chain.client.wg("show", "interfaces").split()
        everything = chain.client.wg("show", "all", "dump").splitlines()
        for number, (end, server) in enumerate(zip(chain.ends, chain.servers)):
            self.assertIn(end.interface, interfaces)
            shown = end.wg("show", end.interface)
            self.assertIn(f"interface: {end.interface}\n  public key: {end.keys.public}", shown)
            self.assertIn(f"peer: {server.keys.public}", shown)
            self.assertIn(f"endpoint: {chain.endpoint(number)}", shown)
            self.assertIn("latest handshake: ", shown)
            rows = [line.split("\t") for line in everything]
            peers = [row[1] for row in rows if row[0] == end.interface and len(row) > 5]
            self.assertEqual(peers, [server.keys.public], end.interface)

    @culvert_only
    def test_the_names_count_outward(self) -> None:
        """wg0, wg0-1, wg0-2; only the owner may use each socket."""
        chain = self.chain(4, 4, 4)
        name = chain.client.interface
        self.assertEqual([end.interface for end in chain.ends], [f"{name}-2", f"{name}-1", name])
        for end in chain.ends:
            mode = end.socket_path.lstat().st_mode
            self.assertTrue(stat.S_ISSOCK(mode))
            self.assertEqual(stat.S_IMODE(mode), 0o600, end.interface)
        self.assertEqual(chain.home.interfaces(), {"lo", "onward", name})

    @culvert_only
    @each(signal_number=(signal.SIGTERM, signal.SIGINT))
    def test_a_signal_ends_all(self, signal_number: int) -> None:
        """Under traffic: status 0, and nothing is left behind."""
        chain = self.chain()
        with datagrams(chain.exit, chain.client, chain.client.inner4, 10**6, (64, 1300), 5000):
            with datagrams(chain.client, chain.exit, chain.exit.inner4, 10**6, (64, 1300), 5000):
                time.sleep(0.3)
                self.assertEqual(chain.client.stop(signal_number), 0)
        self.assertEqual(chain.client.leftovers(), [])

    @quick
    @culvert_only
    @each(what=("interface", "inner_socket", "outer_socket"))
    def test_R25_what_is_deleted_ends_the_process(self, what: str) -> None:
        """It ends cleanly, with all hops."""
        chain = self.chain()
        if what == "interface":
            chain.home.ip(f"link del {chain.client.interface}")
        else:
            end = chain.client if what == "inner_socket" else chain.ends[0]
            end.socket_path.unlink()
        self.assertEqual(chain.client.wait(), 0)
        self.assertEqual(chain.client.leftovers(), [])

    @culvert_only
    def test_a_second_process_is_refused(self) -> None:
        """Without harm to the first, if the interface or only one of the outer names exists."""
        chain = self.chain()
        command = [str(self.settings.program.path), *chain.words(self.files(chain)), "-f"]
        again = chain.home.attempt(*command, chain.client.interface, seconds=15)
        self.assertEqual(again.returncode, 1, again.stderr)
        self.check_answers(chain)
        # The second needs "NAME-1" for its outer hop, which is in use.
        other = self.node()
        other.interface = f"{chain.client.interface}x"
        with self.live_socket(f"{other.interface}-1"):
            refused = other.namespace.attempt(*command, other.interface, seconds=15)
        self.assertEqual(refused.returncode, 1, refused.stderr)
        self.assertIn(f"{other.interface}-1", refused.stderr)
        self.assertEqual(other.leftovers(), [])
        self.check_answers(chain)

    @culvert_only
    def test_the_daemon_is_ready_when_the_command_returns(self) -> None:
        """All sockets exist by then, and a signal removes them all."""
        chain = Chain(self.lab, self.settings.program, self.settings.peer, Shape())
        name = chain.client.interface
        command = [str(self.settings.program.path), *chain.words(self.files(chain)), name]
        result = chain.home.attempt(*command)
        self.assertEqual(result.returncode, 0, result.stderr)
        for end in chain.ends:
            with UAPIConnection(end.socket_path) as connection:
                connection.get()
        chain.handshake()
        (pid,) = chain.home.pids()
        os.kill(pid, signal.SIGTERM)
        wait_until(lambda: not procfs.is_running(pid), "the daemon's end")
        self.assertEqual(chain.client.leftovers(), [])

    def files(self, chain: Chain) -> list[str]:
        return [
            wg_file(end, server, chain.endpoint(number), chain.preshared[number])
            for number, (end, server) in enumerate(zip(chain.ends, chain.servers))
        ]

    @contextlib.contextmanager
    def live_socket(self, name: str):
        """Another program's socket, in use."""
        other = self.lab.node(self.lab.namespace("other"), self.settings.peer, "other")
        other.interface = name
        other.start()
        yield
        self.assertTrue(other.answers)
        other.stop()


class ConfigurationTests(NestingCase):
    @quick
    @culvert_only
    def test_the_innermost_tunnel_configured_by_wg(self) -> None:
        """Without --config it is empty, like any new interface."""
        chain = Chain(self.lab, self.settings.program, self.settings.peer, Shape())
        entry, client = chain.ends[0], chain.client
        path = wg_file(entry, chain.entry, chain.endpoint(0), chain.preshared[0])
        client.start(options=("--through", path))
        self.assertEqual(client.show("peers"), {})
        client.set_private_key(client.keys.private)
        client.add_peer(chain.exit, chain.endpoint(1), None, chain.preshared[1])
        client.bring_up()
        chain.handshake()
        self.check_answers(chain)

    @culvert_only
    def test_files_as_vpn_providers_write_them(self) -> None:
        """With comments, in any case, with settings of wg-quick, and without spaces."""
        chain = Chain(self.lab, self.settings.program, self.settings.peer, Shape())
        entry, client = chain.ends[0], chain.client
        outward = write_file(
            f"{entry.interface}.conf",
            f"""
# A comment
[interface]
privatekey={entry.keys.private}
ADDRESS = {entry.inner4}/32,{entry.inner6}/128   # both
DNS = 10.64.0.1, example.net

[PEER]
PublicKey = {chain.entry.keys.public}
PresharedKey={chain.preshared[0]}
AllowedIPs=0.0.0.0/0,::/0
Endpoint={chain.endpoint(0)}
""",
        )
        inward = wg_file(
            client, chain.exit, chain.endpoint(1), chain.preshared[1],
            interface=("Table = off", "PostUp = false", "SaveConfig = false", "FwMark = 0"),
            peer=("PersistentKeepalive = off",))  # fmt: skip
        client.start(options=chain.words([outward, inward]))
        chain.handshake()
        self.check_answers(chain)

    @culvert_only
    def test_counters_of_every_hop(self) -> None:
        """SIGUSR1 prints them by name; each hop has accepted a handshake and delivered packets."""
        chain = self.chain(4, 6, 4)
        self.check_answers(chain)
        counters = chain.client.counters()
        for end in chain.ends:
            for name in ("sent", "delivered", "handshake-accepted"):
                self.assertGreater(counters.get((end.interface, name), 0), 0, f"{end.role} {name}")
        self.assertEqual({owner for owner, _ in counters}, {end.interface for end in chain.ends})

    @culvert_only
    def test_R27_changes_leak_no_descriptor(self) -> None:
        """Ports and peers of every hop, repeatedly."""
        chain = self.chain()
        before = len(procfs.descriptors(chain.client.pid))
        stranger = KeyPair.generate().public
        for number in range(60):
            for end in chain.ends:
                end.set("listen-port", str(41000 + number))
                end.set("peer", stranger, "allowed-ips", "192.0.2.0/24")
                end.set("peer", stranger, "remove")
        chain.handshake()
        after = len(procfs.descriptors(chain.client.pid))
        self.assertLessEqual(after, before)

    @long
    @culvert_only
    def test_idle_tunnels_never_wake(self) -> None:
        """Once the timers of all hops have run out."""
        chain = Chain(self.lab, self.settings.program, self.settings.peer, Shape())
        # IPv6 would send multicasts by itself.
        chain.home.disable_ipv6()
        for node in (*chain.ends, *chain.servers):
            node.inner6 = ""
        chain.start_client()
        chain.handshake()
        time.sleep(QUIET)
        pid = chain.client.pid
        # The `wg show all` of another test also queries this process and wakes it up.
        for _ in range(3):
            with Capture(chain.home, "onward") as outside:
                before = procfs.wake_ups(pid), procfs.cpu_seconds(pid)
                time.sleep(WATCHED)
                after = procfs.wake_ups(pid), procfs.cpu_seconds(pid)
            if after == before:
                break
        self.assertEqual(after, before, outside.packets)


KEY = "mJGmnCKkJaZL0PrT4kZgqE1pGfh6Y0kYjaGUQgnJ+3E="
PEER = f"[Peer]\nPublicKey = {KEY}\nAllowedIPs = {EVERYTHING}\n"
INTERFACE = f"[Interface]\nPrivateKey = {KEY}\n"
ADDRESS, ENDPOINT = "Address = 10.1.0.1/32\n", "Endpoint = 198.51.100.2:51820\n"
# Mistakes in the outer hop's file, and the text of each such file.
WRONG_FILES = {
    "without_address": INTERFACE + PEER + ENDPOINT,
    "without_peer": INTERFACE + ADDRESS,
    "without_key": "[Interface]\n" + ADDRESS + PEER + ENDPOINT,
    "bad_key": INTERFACE + ADDRESS + PEER.replace(KEY, "abc") + ENDPOINT,
    "bad_word": INTERFACE + ADDRESS + PEER + ENDPOINT + "Nonsense = 1\n",
    "bad_section": INTERFACE + ADDRESS + PEER + ENDPOINT + "[Nonsense]\n",
    "bad_address": INTERFACE + "Address = 10.1.0.300/32\n" + PEER + ENDPOINT,
    "empty": "",
}
GOOD_FILE = INTERFACE + ADDRESS + PEER + ENDPOINT


class MistakeTests(NestingCase):
    @quick
    @culvert_only
    @each(mistake=tuple(WRONG_FILES))
    def test_a_wrong_file_is_told(self, mistake: str) -> None:
        """In one line that names it, and nothing is left behind."""
        path = self.write("wrong.conf", WRONG_FILES[mistake])
        self.check_refused(("--through", path), path)

    @culvert_only
    @each(option=("--config", "--through"))
    def test_a_missing_file_is_told(self, option: str) -> None:
        good = self.write("good.conf", GOOD_FILE)
        missing = str(LOGS / "no-such-file.conf")
        words = {"--config": good, "--through": good, option: missing}
        self.check_refused(sum(words.items(), ()), missing)

    @culvert_only
    def test_a_folder_is_no_file(self) -> None:
        self.check_refused(("--through", str(LOGS)), str(LOGS))

    @culvert_only
    def test_a_name_too_long_for_its_hops(self) -> None:
        """It is valid for one tunnel, but wg(8) could not name the outer hop."""
        good = self.write("good.conf", GOOD_FILE)
        name = "cv" + "x" * (LONGEST_NAME - 1)
        self.check_refused(("--through", good), name, name)

    @culvert_only
    def test_the_longest_name(self) -> None:
        chain = Chain(self.lab, self.settings.program, self.settings.peer, Shape())
        client = chain.client
        assert isinstance(client, NestedNode)
        client.interface = client.interface.ljust(LONGEST_NAME, "x")
        chain.ends[0].interface = f"{client.interface}-1"
        chain.start_client()
        chain.handshake()
        for end, server in zip(chain.ends, chain.servers):
            self.assertEqual(list(end.show("peers")), [server.keys.public])

    def write(self, name: str, text: str) -> str:
        return write_file(f"{self.id().rpartition('.')[2]}-{name}", text)

    def check_refused(self, words: tuple[str, ...], culprit: str, name: str = "") -> None:
        node = self.node()
        name = name or node.interface
        command = [str(self.settings.program.path), *words, "-f", name]
        result = node.namespace.attempt(*command, seconds=5)
        self.assertIn(result.returncode, (1, 2), result.stderr)
        self.assertEqual(result.stdout, "")
        self.assertEqual(result.stderr.count("\n"), 1, result.stderr)
        self.assertTrue(result.stderr.startswith("culvert: "), result.stderr)
        self.assertIn(culprit, result.stderr)
        self.assertEqual(node.namespace.interfaces(), {"lo"})
        self.assertEqual(list(SOCKETS.glob(f"{name}*")), [])
