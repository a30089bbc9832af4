/// A statement of a configuration file: a line, or one element of a list.
package enum ConfigStatement: Equatable, Sendable {
  /// A peer's section begins. The peer before it, if any, is complete.
  case beginPeer
  /// The interface's section begins or continues. The peer before it, if any, is complete.
  case beginInterface
  /// `privateKey`, `listenPort` or `fwmark`.
  case device(DeviceSetting)
  /// An address of the interface (wg-quick(8)).
  case address(ConfigAddress)
  /// Bytes, 68-65535 (wg-quick(8)).
  case mtu(UInt16)
  /// Known but not applied (wg-quick(8)).
  case ignored(ConfigKey)
  /// `publicKey`, `presharedKey`, `endpoint`, `persistentKeepalive`, `allowedIP` or
  /// `removeAllowedIP`. The public key need not come first in its section.
  case peer(PeerSetting)
  /// The port of an endpoint whose host name is in `ConfigParser.name`.
  case namedEndpoint(port: UInt16)
  /// The file is invalid. This is the last statement.
  case failure(ConfigError)
}

/// The keys of a configuration file: those of wg(8), and those that wg-quick(8) adds.
package enum ConfigKey: UInt8, Sendable, BitwiseCopyable {
  // [Peer]; the most frequent first.
  case allowedIPs, publicKey, endpoint, presharedKey, persistentKeepalive
  // [Interface]
  case privateKey, listenPort, fwMark
  // [Interface], from wg-quick(8)
  case address, mtu
  // [Interface], from wg-quick(8): keys that need a shell
  case dns, table, preUp, postUp, preDown, postDown, saveConfig

  package static let count = saveConfig.rawValue + 1
  /// More than the longest name below, with some room for typing errors.
  static let longestByteCount = 24

  /// Nil if the key is unknown. Case and blanks are ignored.
  init?(_ text: UnsafeRawBufferPointer) {
    for raw in 0..<ConfigKey.count {
      if let key = ConfigKey(rawValue: raw), text.isWord(key.name) {
        self = key
        return
      }
    }
    return nil
  }

  /// The spelling of the manual pages.
  package var name: StaticString {
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

  /// True for the keys of [Peer]; all others belong to [Interface].
  var isOfPeer: Bool { rawValue <= ConfigKey.persistentKeepalive.rawValue }

  /// True if the key is not applied.
  package var isIgnored: Bool { rawValue >= ConfigKey.dns.rawValue }

  /// True if a section may have the key more than once.
  var isRepeatable: Bool { self == .allowedIPs || self == .address || isIgnored }

  /// This key's bit in a set of keys.
  package var bit: UInt32 { 1 << UInt32(rawValue) }
}

/// An interface's address with the prefix length of its network (`Address = 10.0.0.2/24`). It keeps
/// its host bits, unlike an `IPPrefix`.
package struct ConfigAddress: Hashable, Sendable, BitwiseCopyable {
  package let address: IPAddress
  /// Bits, 0-32 or 0-128.
  package let length: UInt8

  /// Nil if `length` exceeds the family's bit count.
  package init?(_ address: IPAddress, length: Int) {
    guard length >= 0, length <= address.family.bitCount else { return nil }
    self.address = address
    self.length = UInt8(length)
  }

  /// `address/length`, or `address` for its full length. The length may have leading zeros, as in
  /// wg(8). Zones are refused.
  init?(_ text: UnsafeRawBufferPointer) {
    guard let slash = text.firstPosition(of: UInt8(ascii: "/")) else {
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
  package var prefix: IPPrefix {
    // The length was checked against the same family.
    IPPrefix(address, length: Int(length))!
  }
}

/// Validation of host names (RFC 952, RFC 1123 section 2.1, and underscores, which many networks
/// use).
package enum ConfigHostName {
  /// The longest name in bytes, without a trailing dot (RFC 1035 section 2.3.4: 255 including the
  /// length bytes of its labels and of the root).
  package static let longestByteCount = 253
  static let longestLabelByteCount = 63

  /// The name without a trailing dot. Nil if it is not a host name: if it has other characters than
  /// letters, digits, hyphens, underscores and dots (an internationalised name must be written as
  /// xn--...), if a label is empty or begins or ends with a hyphen, or if the last label is a
  /// number (then it was meant as an address).
  package static func name(_ text: UnsafeRawBufferPointer) -> UnsafeRawBufferPointer? {
    var name = text
    if name.count > 1, name[name.count - 1] == dot { name = name.text(0, name.count - 1) }
    guard name.count > 0, name.count <= longestByteCount else { return nil }
    var start = 0
    for index in 0...name.count where index == name.count || name[index] == dot {
      let label = name.text(start, index)
      guard isLabel(label) else { return nil }
      if index == name.count, isNumber(label) { return nil }
      start = index + 1
    }
    return name
  }

  private static func isLabel(_ text: UnsafeRawBufferPointer) -> Bool {
    guard text.count > 0, text.count <= longestLabelByteCount else { return false }
    guard text[0] != hyphen, text[text.count - 1] != hyphen else { return false }
    for index in 0..<text.count {
      let byte = text[index]
      guard byte.isLetter || byte.isDigit || byte == hyphen || byte == UInt8(ascii: "_") else {
        return false
      }
    }
    return true
  }

  private static var dot: UInt8 { UInt8(ascii: ".") }
  private static var hyphen: UInt8 { UInt8(ascii: "-") }

  /// Decimal, or hexadecimal after `0x`: inet_aton(3) would read it as the end of an address.
  private static func isNumber(_ label: UnsafeRawBufferPointer) -> Bool {
    var digits = label
    var radix: Int32 = 10
    if label.count >= 2, label[0] == UInt8(ascii: "0"), label[1].lowercased == UInt8(ascii: "x") {
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
package struct ConfigError: Error, Equatable, Sendable, BitwiseCopyable {
  package enum Reason: UInt8, Sendable, BitwiseCopyable {
    case overlongLine, noAssignment, noSection, unknownSection, unknownKey
    case belongsToInterface, belongsToPeer, repeated
    case noPrivateKey, noPublicKey
    case badPrivateKey, badListenPort, badFwMark, badAddress, badMTU
    case badPublicKey, badPresharedKey, badAllowedIP, badKeepalive, badHost, badPort

    /// The message for the user. It never quotes a value, which may be a secret.
    package var text: StaticString {
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

  package let reason: Reason
  /// Counted from 1; 0 for the file as a whole.
  package let line: UInt32

  package init(_ reason: Reason, line: UInt32) {
    self.reason = reason
    self.line = line
  }
}
