import Culvert
import Glibc
import Testing

@testable import CulvertLinux

extension LinuxTests {
  @Suite struct ConfigFileTests {
    private static let first = ConfigFileLoad.peerKeys[0]
    private static let second = ConfigFileLoad.peerKeys[1]
    private static let interface = "[Interface]\nPrivateKey = \(ConfigFileLoad.privateKey)\n"

    /// A peer section with these lines.
    private func peer(_ lines: String = "", _ key: String = first) -> String {
      "[Peer]\nPublicKey = \(key)\n\(lines)\n"
    }

    @Test func aWholeFile() throws {
      let load = try ConfigFileLoad()
      let failure = load.load(
        Self.interface
          + """
          Address = 10.66.0.2/24, fd00:66::2/64
          MTU = 1380
          ListenPort = 51821
          FwMark = 0xca6c
          [Peer]
          AllowedIPs = 10.1.0.0/16, ::/0
          PublicKey = \(Self.first)
          PresharedKey = \(Self.second)
          Endpoint = 192.0.2.1:51820
          PersistentKeepalive = 25
          [Peer]
          PublicKey = \(Self.second)
          AllowedIPs = 10.2.0.0/16
          """)
      #expect(failure == nil && load.said == "")
      var clamped = ConfigFileLoad.bytesOfKey(ConfigFileLoad.privateKey)
      clamped[0] &= 248
      clamped[31] = clamped[31] & 127 | 64
      #expect(load.privateKey == clamped)
      #expect(
        load.peers() == [
          "222 - 0 0 10.2.0.0/16", "232 192.0.2.1:51820 25 222 10.1.0.0/16,::/0",
        ])
      #expect(load.settings.listenPort == 51_821 && load.settings.firewallMark == 0xca6c)
      #expect(load.settings.mtu == 1380)
      let addresses = load.settings.addresses.map { address in
        text { $0.append(address.address) } + "/\(address.length)"
      }
      #expect(addresses == ["10.66.0.2/24", "fd00:66::2/64"])
      #expect(load.settings.names.isEmpty && load.settings.ignoredKeys == 0)
      #expect(load.isWiped)
      // The next file replaces the settings, and adds its peers.
      #expect(load.load(Self.interface + peer("Endpoint = [::1]:5")) == nil)
      #expect(load.settings.listenPort == nil && load.settings.firewallMark == nil)
      #expect(load.settings.mtu == nil && load.settings.addresses.isEmpty)
      #expect(load.peers() == ["222 - 0 0 10.2.0.0/16", "232 [::1]:5 25 222 "])
    }

    @Test func aFileWithAnErrorChangesNothing() throws {
      let load = try ConfigFileLoad()
      #expect(load.load(Self.interface + peer("AllowedIPs = 10.0.0.0/8")) == nil)
      let key = load.privateKey
      let wrong =
        "[Interface]\nPrivateKey = \(Self.second)\n" + peer("AllowedIPs = ::/0") + "\nAdress = x"
      #expect(
        load.load(wrong)
          == "exit.conf:7: 'Adress': unknown key; those of wg(8) and wg-quick(8) are known")
      #expect(load.privateKey == key && load.peers() == ["232 - 0 0 10.0.0.0/8"])
      #expect(load.isWiped)
      #expect(load.load(Self.interface + peer("", Self.second)) == nil)
      #expect(load.peers() == ["222 - 0 0 ", "232 - 0 0 10.0.0.0/8"])
    }

    @Test func aZoneIsAnInterface() throws {
      let load = try ConfigFileLoad()
      #expect(load.load(Self.interface + peer("Endpoint = [fe80::1%lo]:5")) == nil)
      #expect(load.peers() == ["232 [fe80::1%1]:5 0 0 "])
    }

    @Test func aPipeIsTakenAsItComes() throws {
      let load = try ConfigFileLoad()
      #expect(load.loadFromPipe(Self.interface + peer("AllowedIPs = 10.0.0.0/8")) == nil)
      #expect(load.peers() == ["232 - 0 0 10.0.0.0/8"] && load.isWiped)
      let failure = load.loadFromPipe(Self.interface + peer("AllowedIPs = ::/0") + "x")
      #expect(failure?.contains(":6: expected KEY = VALUE") == true)
      // A partial configuration is not applied.
      #expect(load.peers().isEmpty && load.privateKey.isEmpty && load.isWiped)
      // Nor does anything stay staged for the next commit.
      let id = try load.tunnel.addPeer(ConfigFileLoad.key(Self.second))
      load.tunnel.commitAllowedIPs(to: id)
      #expect(load.peers() == ["222 - 0 0 "])
    }

    @Test func errorsSayWhereAndWhat() throws {
      let load = try ConfigFileLoad()
      for (text, expected) in [
        ("", "exit.conf: there is no PrivateKey under [Interface]; culvert genkey makes one"),
        ("ListenPort = 5", "exit.conf:1: 'ListenPort': a key before any section; "),
        ("[Interface]\n\nListenPort = x", "exit.conf:3: 'ListenPort': ListenPort takes a number"),
        (Self.interface + "[Peer]\n\n", "exit.conf:3: this peer has no PublicKey; "),
        (Self.interface + "[Peer]\n[Peer]\n", "exit.conf:3: this peer has no PublicKey; "),
        ("[Interface]\n\u{1b}[2J = 5", "exit.conf:2: '?[2J': unknown key"),
        ("[Interface]\n\(Self.first)\n", "exit.conf:2: unknown key"),
        (
          Self.interface + peer("Endpoint = [fe80::1%nosuch]:5"),
          "exit.conf:5: 'nosuch': no interface has this name"
        ),
        (Self.interface + "MTU = 65476", "exit.conf:3: MTU is too large; the maximum is 65475"),
        (
          Self.interface + String(repeating: "Address = ::1\n", count: 9),
          "exit.conf:11: too many addresses; the maximum is 8"
        ),
        (Self.interface + String(repeating: "x", count: 9000), "exit.conf:3: the line is too long"),
      ] {
        let failure = load.load(text)
        #expect(failure?.hasPrefix(expected) == true, "\(failure ?? "none"), not \(expected)")
        #expect(load.isWiped)
      }
      let list = (0..<8).map { "10.0.0.\($0)" + String(repeating: " ", count: 900) }
      #expect(
        load.load(Self.interface + peer("AllowedIPs = " + list.joined(separator: ","))) == nil)
    }

    @Test func tablesThatAreFullLeaveNothingBehind() throws {
      let load = try ConfigFileLoad()
      let nine = (0..<9).map { "10.0.0.\($0)" }.joined(separator: ",")
      #expect(
        load.load(Self.interface + peer("AllowedIPs = \(nine)"))
          == "exit.conf:5: too many allowed IPs; the limit is 8, raise it with --max-allowed-ips")
      #expect(load.peers().isEmpty && load.privateKey.isEmpty)
      let five = (0..<5).map { index in
        peer("", "\(["A", "B", "C", "D", "E"][index])" + Self.first.dropFirst())
      }
      #expect(
        load.load(Self.interface + five.joined())
          == "exit.conf:16: too many peers; the limit is 4, raise it with --max-peers")
      #expect(load.peers().isEmpty && load.privateKey.isEmpty && load.isWiped)
      #expect(load.load(Self.interface + five.dropLast().joined()) == nil)
      #expect(load.peers().count == 4)
    }

    @Test func whatIsNoFile() throws {
      let load = try ConfigFileLoad()
      withTemporaryDirectory { directory in
        #expect(
          load.load(path: directory + "/", directory)
            == ": this is a directory; give the path of a configuration file")
        #expect(
          load.load(path: directory + "/none", directory)
            == "none: cannot read the file: No such file or directory (ENOENT)")
        #expect(load.load(path: "", directory)?.hasSuffix("(ENOENT)") == true)
      }
      withTemporaryDirectory { directory in
        let endless = load.load(path: "/dev/zero", directory)
        #expect(
          endless == "/dev/zero: the file is larger than 32 MiB; check that it is the right one")
        // A file that every process has, but that cannot be read.
        let failure = load.load(path: "/proc/self/mem", directory)
        #expect(failure == "/proc/self/mem: cannot read the file: Input/output error (EIO)")
      }
      #expect(load.isWiped)
    }

    @Test func aFileThatEverybodyCanReadIsWarnedOf() throws {
      let load = try ConfigFileLoad()
      let warning =
        "culvert: exit.conf: every user can read this file and its private key; "
        + "run: chmod 600 exit.conf\n"
      // In a directory that nobody else can enter, the file's mode does not matter.
      #expect(load.load(Self.interface, mode: 0o644) == nil)
      #expect(load.said == "")
      withTemporaryDirectory { directory in
        chmod(directory, 0o755)
        for (mode, expected) in [(0o644, warning), (0o640, ""), (0o600, "")] as [(mode_t, String)] {
          ConfigFileLoad.write(Self.interface, to: directory + "/exit.conf", mode)
          #expect(load.load(path: directory + "/exit.conf", directory) == nil)
          #expect(load.said == expected)
        }
      }
    }

    @Test func whatIsNotCarriedOutIsSaid() throws {
      let load = try ConfigFileLoad()
      #expect(load.load(Self.interface + "PostUp = a\nDNS = 1.1.1.1\npostup = b\n") == nil)
      #expect(load.settings.ignoredKeys == ConfigKey.dns.bit | ConfigKey.postUp.bit)
      #expect(
        load.said
          == "culvert: exit.conf: ignored keys: DNS PostUp; "
          + "only wg-quick supports them: use it, or make these settings yourself\n")
    }

    @Test func aPeerThatStandsTwiceIsReplaced() throws {
      let load = try ConfigFileLoad()
      let twice =
        Self.interface + peer("AllowedIPs = 10.0.0.0/8\nEndpoint = a:1\nPersistentKeepalive = 5")
        + peer("", Self.second) + peer("AllowedIPs = 11.0.0.0/8\nEndpoint = 192.0.2.1:2")
      #expect(load.load(twice) == nil)
      #expect(load.peers() == ["222 - 0 0 ", "232 192.0.2.1:2 5 0 11.0.0.0/8"])
      #expect(
        load.load(Self.interface + peer("AllowedIPs = +1.0.0.0/8, -1.0.0.0/8,+2.0.0.0/8")) == nil)
      #expect(load.peers().last == "232 192.0.2.1:2 5 0 2.0.0.0/8")
      // The name of an endpoint that is replaced later in the file is not looked up.
      let none = Self.interface + peer("Endpoint = none:1") + peer("Endpoint = 192.0.2.3:4")
      #expect(load.load(none) == nil && load.said == "")
    }

    // MARK: Host names

    /// Loading a file needs no name server: the names are left to the resolver.
    @Test func R44_namesAreKeptWithTheirPeers() throws {
      let load = try ConfigFileLoad()
      let file =
        Self.interface + peer("Endpoint = first.example:1\nPersistentKeepalive = 7")
        + peer("Endpoint = VPN.Example.org.:65535", Self.second)
      #expect(load.load(file) == nil)
      #expect(load.said == "")
      #expect(load.peers() == ["222 - 0 0 ", "232 - 7 0 "])
      let names = load.settings.names.map { String(decoding: $0.name, as: UTF8.self) }
      #expect(names == ["first.example", "VPN.Example.org"])
      #expect(load.settings.names.map(\.port) == [1, 65_535])
      #expect(
        load.settings.names.map(\.publicKey)
          == [ConfigFileLoad.key(Self.first), ConfigFileLoad.key(Self.second)])
      #expect(load.isWiped)
    }

    @Test func moreNamesThanThereIsRoomFor() throws {
      let load = try ConfigFileLoad()
      let names = (0..<17).map { peer("Endpoint = n\($0):1") }
      #expect(load.load(Self.interface + peer("", Self.second)) == nil)
      #expect(
        load.load(Self.interface + names.joined())
          == "exit.conf:53: too many endpoints with host names; the maximum is 16, "
          + "use IP addresses for the others")
      #expect(load.peers() == ["222 - 0 0 "])
      #expect(load.load(Self.interface + names.dropLast().joined()) == nil)
      // The last one counts, and only that one is looked up.
      #expect(load.settings.names.count == 16)
      #expect(load.settings.names.filter { !$0.publicKey.isZero }.count == 1)
    }

    @Test func theDevicesOwnKeyIsNoPeers() throws {
      let load = try ConfigFileLoad()
      #expect(load.load(Self.interface) == nil)
      var own = load.tunnel.publicKey!
      let text = withUnsafeBytes(of: &own) { bytes in
        withUnsafeTemporaryAllocation(byteCount: 44, alignment: 1) { memory in
          var writer = ByteWriter(memory)
          Base64.appendKey(bytes.baseAddress!, to: &writer)
          return String(decoding: writer.written, as: UTF8.self)
        }
      }
      #expect(load.load(Self.interface + peer("Endpoint = a:1", text)) == nil)
      #expect(load.peers().isEmpty)
    }
  }
}
