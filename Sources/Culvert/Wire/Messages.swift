/// The four messages of the protocol (whitepaper section 5.4).
enum MessageType: UInt8, BitwiseCopyable {
  case initiation = 1
  case response = 2
  case cookieReply = 3
  case transportData = 4

  /// Nil unless the datagram starts with a known type and three zero bytes, and has the length of
  /// that type: exactly, or for transport data at least that of a keepalive (R30).
  @inline(__always)
  init?(at bytes: UnsafeRawPointer, byteCount: Int) {
    // Every message is longer than its type word.
    guard byteCount >= WireGuard.keepaliveByteCount else { return nil }
    // Type and reserved bytes are one little-endian word.
    switch bytes.loadLittle(0, as: UInt32.self) {
    case 4: self = .transportData
    case 1 where byteCount == WireGuard.initiationByteCount: self = .initiation
    case 2 where byteCount == WireGuard.responseByteCount: self = .response
    case 3 where byteCount == WireGuard.cookieReplyByteCount: self = .cookieReply
    default: return nil
    }
  }

  /// Writes the type and the three reserved bytes.
  @inline(__always)
  func write(to bytes: UnsafeMutableRawPointer) {
    bytes.storeLittle(UInt32(rawValue), 0)
  }
}

/// A view of a handshake initiation (whitepaper section 5.4.2):
/// type, reserved 4 | sender 4 | ephemeral 32 | static 32+16 | timestamp 12+16 | mac1 16 | mac2 16.
struct InitiationMessage: BitwiseCopyable {
  let bytes: UnsafeMutableRawPointer

  static let byteCount = WireGuard.initiationByteCount
  static let senderOffset = 4
  static let ephemeralOffset = 8
  static let encryptedStaticOffset = 40
  static let encryptedTimestampOffset = 88
  /// mac1 covers everything before it.
  static let mac1Offset = 116
  /// mac2 covers everything before it, mac1 included.
  static let mac2Offset = 132

  /// Nil unless the datagram is an initiation (R30).
  @inline(__always)
  init?(at bytes: UnsafeMutableRawPointer, byteCount: Int) {
    guard MessageType(at: bytes, byteCount: byteCount) == .initiation else { return nil }
    self.bytes = bytes
  }

  /// Starts a message in `byteCount` bytes: writes type and sender, leaves the rest to the caller.
  @inline(__always)
  init(writingTo bytes: UnsafeMutableRawPointer, sender: UInt32) {
    self.bytes = bytes
    MessageType.initiation.write(to: bytes)
    bytes.storeLittle(sender, InitiationMessage.senderOffset)
  }

  /// The index by which the initiator wants to be answered.
  @inline(__always)
  var sender: UInt32 { bytes.loadLittle(InitiationMessage.senderOffset, as: UInt32.self) }

  /// 32 bytes, an unencrypted public key.
  @inline(__always)
  var ephemeral: UnsafeMutableRawPointer { bytes + InitiationMessage.ephemeralOffset }

  /// 32 bytes of public key and 16 of tag.
  @inline(__always)
  var encryptedStatic: UnsafeMutableRawPointer { bytes + InitiationMessage.encryptedStaticOffset }

  /// 12 bytes of TAI64N and 16 of tag.
  @inline(__always)
  var encryptedTimestamp: UnsafeMutableRawPointer {
    bytes + InitiationMessage.encryptedTimestampOffset
  }

  /// 16 bytes.
  @inline(__always)
  var mac1: UnsafeMutableRawPointer { bytes + InitiationMessage.mac1Offset }

  /// 16 bytes.
  @inline(__always)
  var mac2: UnsafeMutableRawPointer { bytes + InitiationMessage.mac2Offset }
}

/// A view of a handshake response (whitepaper section 5.4.3):
/// type, reserved 4 | sender 4 | receiver 4 | ephemeral 32 | nothing 0+16 | mac1 16 | mac2 16.
struct ResponseMessage: BitwiseCopyable {
  let bytes: UnsafeMutableRawPointer

  static let byteCount = WireGuard.responseByteCount
  static let senderOffset = 4
  static let receiverOffset = 8
  static let ephemeralOffset = 12
  static let encryptedNothingOffset = 44
  /// mac1 covers everything before it.
  static let mac1Offset = 60
  /// mac2 covers everything before it, mac1 included.
  static let mac2Offset = 76

  /// Nil unless the datagram is a response (R30).
  @inline(__always)
  init?(at bytes: UnsafeMutableRawPointer, byteCount: Int) {
    guard MessageType(at: bytes, byteCount: byteCount) == .response else { return nil }
    self.bytes = bytes
  }

  /// Starts a message in `byteCount` bytes: writes type, sender and receiver, leaves the rest to
  /// the caller.
  @inline(__always)
  init(writingTo bytes: UnsafeMutableRawPointer, sender: UInt32, receiver: UInt32) {
    self.bytes = bytes
    MessageType.response.write(to: bytes)
    bytes.storeLittle(sender, ResponseMessage.senderOffset)
    bytes.storeLittle(receiver, ResponseMessage.receiverOffset)
  }

  /// The responder's index.
  @inline(__always)
  var sender: UInt32 { bytes.loadLittle(ResponseMessage.senderOffset, as: UInt32.self) }

  /// The sender index of the initiation that is answered.
  @inline(__always)
  var receiver: UInt32 { bytes.loadLittle(ResponseMessage.receiverOffset, as: UInt32.self) }

  /// 32 bytes, an unencrypted public key.
  @inline(__always)
  var ephemeral: UnsafeMutableRawPointer { bytes + ResponseMessage.ephemeralOffset }

  /// 16 bytes of tag.
  @inline(__always)
  var encryptedNothing: UnsafeMutableRawPointer { bytes + ResponseMessage.encryptedNothingOffset }

  /// 16 bytes.
  @inline(__always)
  var mac1: UnsafeMutableRawPointer { bytes + ResponseMessage.mac1Offset }

  /// 16 bytes.
  @inline(__always)
  var mac2: UnsafeMutableRawPointer { bytes + ResponseMessage.mac2Offset }
}

/// A view of a cookie reply (whitepaper section 5.4.7):
/// type, reserved 4 | receiver 4 | nonce 24 | cookie 16+16.
struct CookieReplyMessage: BitwiseCopyable {
  let bytes: UnsafeMutableRawPointer

  static let byteCount = WireGuard.cookieReplyByteCount
  static let receiverOffset = 4
  static let nonceOffset = 8
  static let encryptedCookieOffset = 32

  /// Nil unless the datagram is a cookie reply (R30).
  @inline(__always)
  init?(at bytes: UnsafeMutableRawPointer, byteCount: Int) {
    guard MessageType(at: bytes, byteCount: byteCount) == .cookieReply else { return nil }
    self.bytes = bytes
  }

  /// Starts a message in `byteCount` bytes: writes type and receiver, leaves the rest to the
  /// caller.
  @inline(__always)
  init(writingTo bytes: UnsafeMutableRawPointer, receiver: UInt32) {
    self.bytes = bytes
    MessageType.cookieReply.write(to: bytes)
    bytes.storeLittle(receiver, CookieReplyMessage.receiverOffset)
  }

  /// The sender index of the handshake message that is answered.
  @inline(__always)
  var receiver: UInt32 { bytes.loadLittle(CookieReplyMessage.receiverOffset, as: UInt32.self) }

  /// 24 bytes.
  @inline(__always)
  var nonce: UnsafeMutableRawPointer { bytes + CookieReplyMessage.nonceOffset }

  /// 16 bytes of cookie and 16 of tag.
  @inline(__always)
  var encryptedCookie: UnsafeMutableRawPointer { bytes + CookieReplyMessage.encryptedCookieOffset }
}

/// A view of a transport data message (whitepaper section 5.4.6):
/// type, reserved 4 | receiver 4 | counter 8 | packet n+16.
struct TransportDataMessage: BitwiseCopyable {
  let bytes: UnsafeMutableRawPointer
  /// Of the whole message, at least 32.
  let byteCount: Int

  static let receiverOffset = 4
  static let counterOffset = 8
  static let encryptedPacketOffset = WireGuard.transportHeaderByteCount

  /// Nil unless the datagram is transport data (R30).
  @inline(__always)
  init?(at bytes: UnsafeMutableRawPointer, byteCount: Int) {
    guard MessageType(at: bytes, byteCount: byteCount) == .transportData else { return nil }
    self.bytes = bytes
    self.byteCount = byteCount
  }

  /// Writes the 16 bytes of header before a packet.
  @inline(__always)
  static func writeHeader(to bytes: UnsafeMutableRawPointer, receiver: UInt32, counter: UInt64) {
    MessageType.transportData.write(to: bytes)
    bytes.storeLittle(receiver, receiverOffset)
    bytes.storeLittle(counter, counterOffset)
  }

  /// The index that the receiver chose for the session.
  @inline(__always)
  var receiver: UInt32 { bytes.loadLittle(TransportDataMessage.receiverOffset, as: UInt32.self) }

  /// The packet's nonce.
  @inline(__always)
  var counter: UInt64 { bytes.loadLittle(TransportDataMessage.counterOffset, as: UInt64.self) }

  /// `encryptedPacketByteCount` bytes of ciphertext, then 16 of tag.
  @inline(__always)
  var encryptedPacket: UnsafeMutableRawPointer {
    bytes + TransportDataMessage.encryptedPacketOffset
  }

  /// Bytes of ciphertext without the tag: those of the plaintext, padding included.
  @inline(__always)
  var encryptedPacketByteCount: Int { byteCount &- WireGuard.keepaliveByteCount }

  @inline(__always)
  var isKeepalive: Bool { byteCount == WireGuard.keepaliveByteCount }
}
