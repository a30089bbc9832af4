/// What a line of a configuration file says, or one element of it where it holds a list.
public enum ConfigStatement: Equatable, Sendable {
  /// A peer's section begins: what was said of the peer before is complete.
  case beginPeer
  /// The interface's section begins, or goes on; a peer's section before it is complete.
  case beginInterface
  /// `privateKey`, `listenPort` or `fwmark`.
  case device(DeviceSetting)
  /// An address of the interface (wg-quick(8)).
  case address(ConfigAddress)
  /// Bytes, 68-65535 (wg-quick(8)).
  case mtu(UInt16)
  /// Known and not carried out (wg-quick(8)).
  case ignored(ConfigKey)
  /// `publicKey`, `presharedKey`, `endpoint`, `persistentKeepalive`, `allowedIP` or
  /// `removeAllowedIP`. The public key need not be the first of its section.
  case peer(PeerSetting)
  /// An endpoint given by a host name, which is in `ConfigParser.name`, and its port.
  case namedEndpoint(port: UInt16)
  /// The file is wrong; nothing follows.
  case failure(ConfigError)
}

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

/// An address of an interface and the length of the network that is reached through it
/// (`Address = 10.0.0.2/24`). Unlike an `IPPrefix` it keeps its host bits.
public struct ConfigAddress: Hashable, Sendable, BitwiseCopyable {
  public let address: IPAddress
  /// Bits, 0-32 or 0-128.
  public let length: UInt8

  /// Nil where `length` exceeds the family's bit count.
  public init?(_ address: IPAddress, length: Int) {
    guard length >= 0, length <= address.family.bitCount else { return nil }
    self.address = address
    self.length = UInt8(length)
  }

  /// `address/length`, or `address` for its full length. The length may have leading zeros, as for
  /// wg(8); there is no zone.
  init?(_ text: UnsafeRawBufferPointer) {
    guard let slash = text.firstPosition(of: 0x2f) else {
      guard let address = AddressText.address(text) else { return nil }
      self.init(address, length: address.family.bitCount)
      return
    }
    guard let address = AddressText.address(text.text(0, slash)),
      let length = text.text(from: slash + 1).number(maximum: 128)
    else { return nil }
    self.init(address, length: Int(length))
  }

  /// The network.
  public var prefix: IPPrefix {
    // The length was checked against the same family.
    IPPrefix(address, length: Int(length))!
  }
}

/// Host names: which text is one (RFC 952, RFC 1123 section 2.1, with the underscore that many
/// networks have).
public enum ConfigHostName {
  /// Longest name in bytes, without a dot at its end (RFC 1035 section 2.3.4: 255 with the lengths
  /// of its labels and the root's).
  public static let longestByteCount = 253
  static let longestLabelByteCount = 63

  /// The name without the dot that may stand at its end. Nil where it is none: bytes that are not
  /// ASCII (an internationalised name is written as xn--...), an empty label or one that begins or
  /// ends with a hyphen, and anything whose last label is a number: that was meant as an address.
  public static func name(_ text: UnsafeRawBufferPointer) -> UnsafeRawBufferPointer? {
    var name = text
    if name.count > 1, name[name.count - 1] == 0x2e { name = name.text(0, name.count - 1) }
    guard name.count > 0, name.count <= longestByteCount else { return nil }
    var start = 0
    for index in 0...name.count where index == name.count || name[index] == 0x2e {
      let label = name.text(start, index)
      guard isLabel(label) else { return nil }
      if index == name.count, isNumber(label) { return nil }
      start = index + 1
    }
    return name
  }

  private static func isLabel(_ text: UnsafeRawBufferPointer) -> Bool {
    guard text.count > 0, text.count <= longestLabelByteCount else { return false }
    guard text[0] != 0x2d, text[text.count - 1] != 0x2d else { return false }
    for index in 0..<text.count {
      let byte = text[index]
      let isLetter = byte | 0x20 >= 0x61 && byte | 0x20 <= 0x7a
      let isDigit = byte >= 0x30 && byte <= 0x39
      guard isLetter || isDigit || byte == 0x2d || byte == 0x5f else { return false }
    }
    return true
  }

  /// Decimal, or hexadecimal behind `0x`: what inet_aton(3) would take for the end of an address.
  private static func isNumber(_ label: UnsafeRawBufferPointer) -> Bool {
    var digits = label
    var radix: Int32 = 10
    if label.count >= 2, label[0] == 0x30, label[1] | 0x20 == 0x78 {
      digits = label.text(from: 2)
      radix = 16
    }
    for index in 0..<digits.count {
      let value = Hex.value(of: digits[index])
      guard value >= 0, value < radix else { return false }
    }
    return true
  }
}

/// Why a configuration file cannot be used, and where.
public struct ConfigError: Error, Equatable, Sendable, BitwiseCopyable {
  public enum Reason: UInt8, Sendable, BitwiseCopyable {
    case overlongLine, noAssignment, noSection, unknownSection, unknownKey
    case belongsToInterface, belongsToPeer, repeated
    case noPrivateKey, noPublicKey
    case badPrivateKey, badListenPort, badFwMark, badAddress, badMTU
    case badPublicKey, badPresharedKey, badAllowedIP, badKeepalive, badHost, badPort

    /// A clause for the user that says what to do. It never repeats a value, which may be a secret.
    public var text: StaticString {
      switch self {
      case .overlongLine: "the line is too long; a list may go on under the same key in a new line"
      case .noAssignment: "expected KEY = VALUE, [Interface] or [Peer]; comments begin with #"
      case .noSection: "a key before any section; begin with [Interface] or [Peer]"
      case .unknownSection: "unknown section; there are [Interface] and [Peer]"
      case .unknownKey: "unknown key; those of wg(8) and wg-quick(8) are known"
      case .belongsToInterface: "this key belongs under [Interface]"
      case .belongsToPeer: "this key belongs under [Peer]"
      case .repeated: "this key stands here for the second time; keep one of them"
      case .noPrivateKey: "there is no PrivateKey under [Interface]; culvert genkey makes one"
      case .noPublicKey: "this peer has no PublicKey; ask its owner for it"
      case .badPrivateKey: "PrivateKey takes 44 characters of base64, as culvert genkey prints them"
      case .badListenPort: "ListenPort takes a number from 0 to 65535"
      case .badFwMark: "FwMark takes a number up to 4294967295 or 0xffffffff, or off"
      case .badAddress: "Address takes IP addresses, each with /LENGTH or without"
      case .badMTU: "MTU takes a number from 68 to 65535"
      case .badPublicKey: "PublicKey takes 44 characters of base64, as culvert pubkey prints them"
      case .badPresharedKey:
        "PresharedKey takes 44 characters of base64, as culvert genpsk prints them"
      case .badAllowedIP:
        "AllowedIPs takes IP addresses, each with /LENGTH or without, and commas between them"
      case .badKeepalive: "PersistentKeepalive takes seconds from 0 to 65535, or off"
      case .badHost:
        "Endpoint takes ADDRESS:PORT, [IPV6]:PORT or NAME:PORT; names of a-z, 0-9, - and _"
      case .badPort: "Endpoint takes a port from 1 to 65535 behind the last colon"
      }
    }
  }

  public let reason: Reason
  /// Counted from 1; 0 where it is about the file as a whole.
  public let line: UInt32

  public init(_ reason: Reason, line: UInt32) {
    self.reason = reason
    self.line = line
  }
}
