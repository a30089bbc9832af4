/// The keys of a configuration file: those of wg(8), and those that wg-quick(8) adds.
public enum ConfigKey: UInt8, Sendable, BitwiseCopyable {
  // [Peer]; the most frequent first.
  case allowedIPs, publicKey, endpoint, presharedKey, persistentKeepalive
  // [Interface]
  case privateKey, listenPort, fwMark
  // [Interface], from wg-quick(8)
  case address, mtu
  // [Interface], from wg-quick(8): what only a shell can carry out
  case dns, table, preUp, postUp, preDown, postDown, saveConfig

  public static let count = saveConfig.rawValue + 1
  /// Of the names below, and some for a slip of the finger.
  static let longestByteCount = 24

  /// Nil where the key is unknown. Case does not matter, and blanks do not count.
  init?(_ text: UnsafeRawBufferPointer) {
    for raw in 0..<ConfigKey.count {
      if let key = ConfigKey(rawValue: raw), text.isWord(key.name) {
        self = key
        return
      }
    }
    return nil
  }

  /// As the manual pages write it.
  public var name: StaticString {
    switch self {
    case .allowedIPs: "AllowedIPs"
    case .publicKey: "PublicKey"
    case .endpoint: "Endpoint"
    case .presharedKey: "PresharedKey"
    case .persistentKeepalive: "PersistentKeepalive"
    case .privateKey: "PrivateKey"
    case .listenPort: "ListenPort"
    case .fwMark: "FwMark"
    case .address: "Address"
    case .mtu: "MTU"
    case .dns: "DNS"
    case .table: "Table"
    case .preUp: "PreUp"
    case .postUp: "PostUp"
    case .preDown: "PreDown"
    case .postDown: "PostDown"
    case .saveConfig: "SaveConfig"
    }
  }

  /// True for the keys under [Peer]; all others stand under [Interface].
  var isOfPeer: Bool { rawValue <= ConfigKey.persistentKeepalive.rawValue }

  /// True where nothing is done about the key.
  public var isIgnored: Bool { rawValue >= ConfigKey.dns.rawValue }

  /// True where the key may stand in a section more than once.
  var isRepeatable: Bool { self == .allowedIPs || self == .address || isIgnored }

  /// This key's bit in a set of keys.
  public var bit: UInt32 { 1 << UInt32(rawValue) }
}
