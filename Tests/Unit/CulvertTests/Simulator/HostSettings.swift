#if !ONE_MODULE
  @testable import Culvert
#endif

/// The configuration of a host, as in its file: a naive model of what its tunnel has been told.
struct HostSettings {
  struct PeerSettings {
    /// The host behind this peer; nil for a peer that nobody answers for.
    var host: Int?
    var key: Key
    var presharedKey = [UInt8](repeating: 0, count: WireGuard.keyByteCount)
    var endpoint: Endpoint?
    /// In seconds; 0 means off.
    var keepalive: UInt16 = 0
  }

  var privateKey: [UInt8] {
    didSet { publicKey = KeyBook.publicKey(of: privateKey) }
  }
  private(set) var publicKey: Key
  var isUp = true
  var mtu = Policy.defaultMTU
  private(set) var peers: [PeerSettings] = []
  /// The key of the peer to which each host's prefixes lead.
  private(set) var owners: [Int: Key] = [:]

  init(privateKey: [UInt8]) {
    self.privateKey = privateKey
    publicKey = KeyBook.publicKey(of: privateKey)
  }

  // MARK: Peers

  func find(_ key: Key) -> Int? { peers.firstIndex { $0.key == key } }

  func peer(of host: Int) -> PeerSettings? { peers.first { $0.host == host } }

  mutating func add(_ peer: PeerSettings) { peers.append(peer) }

  mutating func change(_ key: Key, _ body: (inout PeerSettings) -> Void) {
    if let place = find(key) { body(&peers[place]) }
  }

  mutating func remove(_ key: Key) {
    peers.removeAll { $0.key == key }
    owners = owners.filter { $0.value != key }
  }

  // MARK: Allowed IPs

  /// The prefixes of a host: 10.x.y.0/24 and fd00:n::/96.
  static func prefixes(of host: Int) -> [IPPrefix] {
    [IPPrefix(address(of: host), length: 24)!, IPPrefix(address6(of: host), length: 96)!]
  }

  static func address(of host: Int) -> IPAddress {
    IPAddress(ipv4: 10 << 24 | UInt32(host) << 8 | 1)
  }

  static func address6(of host: Int) -> IPAddress {
    IPAddress(ipv6High: 0xfd00 << 48 | UInt64(host) << 32, low: 1)
  }

  /// Leads a host's prefixes to this peer, or for nil to none.
  mutating func route(_ host: Int, to key: Key?) { owners[host] = key }

  /// The hosts whose prefixes lead to this peer.
  func routes(to key: Key) -> [Int] {
    owners.filter { $0.value == key }.map(\.key).sorted()
  }

  /// The host to which packets for `host` are sent; nil if there is none that could answer.
  func route(_ host: Int) -> Int? {
    owners[host].flatMap(find).flatMap { peers[$0].host }
  }
}
