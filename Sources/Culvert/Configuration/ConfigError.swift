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
