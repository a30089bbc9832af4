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
    // The type and the reserved bytes form one little-endian word.
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

/// A view of a message whose type and length have been checked.
struct Message<Layout: MessageLayout>: BitwiseCopyable {
  let bytes: UnsafeMutableRawPointer
  /// Of the whole message.
  let byteCount: Int

  /// Nil unless the datagram is a message of this type (R30).
  @inline(__always)
  init?(at bytes: UnsafeMutableRawPointer, byteCount: Int) {
    guard MessageType(at: bytes, byteCount: byteCount) == Layout.type else { return nil }
    self.bytes = bytes
    self.byteCount = byteCount
  }

  /// Starts a message: writes the type and leaves the rest to the caller.
  @inline(__always)
  private init(writingTo bytes: UnsafeMutableRawPointer, byteCount: Int) {
    self.bytes = bytes
    self.byteCount = byteCount
    Layout.type.write(to: bytes)
  }
}

typealias InitiationMessage = Message<InitiationLayout>
typealias ResponseMessage = Message<ResponseLayout>
typealias CookieReplyMessage = Message<CookieReplyLayout>
typealias TransportDataMessage = Message<TransportDataLayout>

/// The byte offsets of a message's fields.
protocol MessageLayout {
  static var type: MessageType { get }
}

/// A message with a receiver index, which identifies a session or handshake of the receiver.
protocol AddressedLayout: MessageLayout {
  static var receiverOffset: Int { get }
}

/// A handshake message: it has a sender index and an ephemeral key, and ends with two MACs.
protocol HandshakeLayout: MessageLayout {
  static var ephemeralOffset: Int { get }
  static var byteCount: Int { get }
}

/// Handshake initiation (whitepaper section 5.4.2):
/// type, reserved 4 | sender 4 | ephemeral 32 | static 32+16 | timestamp 12+16 | mac1 16 | mac2 16.
enum InitiationLayout: HandshakeLayout {
  static var type: MessageType { .initiation }
  static var byteCount: Int { WireGuard.initiationByteCount }
  static var ephemeralOffset: Int { 8 }
}

/// Handshake response (whitepaper section 5.4.3):
/// type, reserved 4 | sender 4 | receiver 4 | ephemeral 32 | nothing 0+16 | mac1 16 | mac2 16.
enum ResponseLayout: HandshakeLayout, AddressedLayout {
  static var type: MessageType { .response }
  static var byteCount: Int { WireGuard.responseByteCount }
  static var receiverOffset: Int { 8 }
  static var ephemeralOffset: Int { 12 }
}

/// Cookie reply (whitepaper section 5.4.7):
/// type, reserved 4 | receiver 4 | nonce 24 | cookie 16+16.
enum CookieReplyLayout: AddressedLayout {
  static var type: MessageType { .cookieReply }
  static var receiverOffset: Int { 4 }
}

/// Transport data (whitepaper section 5.4.6):
/// type, reserved 4 | receiver 4 | counter 8 | packet n+16.
enum TransportDataLayout: AddressedLayout {
  static var type: MessageType { .transportData }
  static var receiverOffset: Int { 4 }
}

// MARK: Fields of several messages

extension Message where Layout: AddressedLayout {
  static var receiverOffset: Int { Layout.receiverOffset }

  /// The index that the receiver chose: that of a session or, in a response or cookie reply, the
  /// sender index of the message being answered.
  @inline(__always)
  var receiver: UInt32 { bytes.loadLittle(Layout.receiverOffset, as: UInt32.self) }
}

extension Message where Layout: HandshakeLayout {
  static var senderOffset: Int { 4 }
  static var ephemeralOffset: Int { Layout.ephemeralOffset }
  /// mac1 covers everything before it.
  static var mac1Offset: Int { mac2Offset - WireGuard.macByteCount }
  /// mac2 covers everything before it, mac1 included.
  static var mac2Offset: Int { Layout.byteCount - WireGuard.macByteCount }

  /// The index that the sender chose; the answer carries it as its receiver index.
  @inline(__always)
  var sender: UInt32 { bytes.loadLittle(Self.senderOffset, as: UInt32.self) }

  /// 32 bytes, an unencrypted public key.
  @inline(__always)
  var ephemeral: UnsafeMutableRawPointer { bytes + Self.ephemeralOffset }

  /// 16 bytes.
  @inline(__always)
  var mac1: UnsafeMutableRawPointer { bytes + Self.mac1Offset }

  /// 16 bytes.
  @inline(__always)
  var mac2: UnsafeMutableRawPointer { bytes + Self.mac2Offset }
}

// MARK: Fields of one message

extension Message<InitiationLayout> {
  /// Starts a message: writes type and sender and leaves the rest to the caller.
  @inline(__always)
  init(writingTo bytes: UnsafeMutableRawPointer, sender: UInt32) {
    self.init(writingTo: bytes, byteCount: Layout.byteCount)
    bytes.storeLittle(sender, Self.senderOffset)
  }

  /// 32 bytes of public key and 16 of tag.
  @inline(__always)
  var encryptedStatic: UnsafeMutableRawPointer { bytes + 40 }

  /// 12 bytes of TAI64N and 16 of tag.
  @inline(__always)
  var encryptedTimestamp: UnsafeMutableRawPointer { bytes + 88 }
}

extension Message<ResponseLayout> {
  /// Starts a message: writes type, sender and receiver and leaves the rest to the caller.
  @inline(__always)
  init(writingTo bytes: UnsafeMutableRawPointer, sender: UInt32, receiver: UInt32) {
    self.init(writingTo: bytes, byteCount: Layout.byteCount)
    bytes.storeLittle(sender, Self.senderOffset)
    bytes.storeLittle(receiver, Self.receiverOffset)
  }

  /// 16 bytes of tag.
  @inline(__always)
  var encryptedNothing: UnsafeMutableRawPointer { bytes + 44 }
}

extension Message<CookieReplyLayout> {
  /// Starts a message: writes type and receiver and leaves the rest to the caller.
  @inline(__always)
  init(writingTo bytes: UnsafeMutableRawPointer, receiver: UInt32) {
    self.init(writingTo: bytes, byteCount: WireGuard.cookieReplyByteCount)
    bytes.storeLittle(receiver, Self.receiverOffset)
  }

  /// 24 bytes.
  @inline(__always)
  var nonce: UnsafeMutableRawPointer { bytes + 8 }

  /// 16 bytes of cookie and 16 of tag.
  @inline(__always)
  var encryptedCookie: UnsafeMutableRawPointer { bytes + 32 }
}

extension Message<TransportDataLayout> {
  private static var counterOffset: Int { 8 }

  /// Writes the 16-byte header before a packet.
  @inline(__always)
  static func writeHeader(to bytes: UnsafeMutableRawPointer, receiver: UInt32, counter: UInt64) {
    Layout.type.write(to: bytes)
    bytes.storeLittle(receiver, receiverOffset)
    bytes.storeLittle(counter, counterOffset)
  }

  /// The packet's nonce.
  @inline(__always)
  var counter: UInt64 { bytes.loadLittle(Self.counterOffset, as: UInt64.self) }

  /// `encryptedPacketByteCount` bytes of ciphertext, then 16 of tag.
  @inline(__always)
  var encryptedPacket: UnsafeMutableRawPointer { bytes + WireGuard.transportHeaderByteCount }

  /// Bytes of ciphertext without the tag: those of the plaintext, padding included.
  @inline(__always)
  var encryptedPacketByteCount: Int { byteCount &- WireGuard.keepaliveByteCount }

  @inline(__always)
  var isKeepalive: Bool { byteCount == WireGuard.keepaliveByteCount }
}
