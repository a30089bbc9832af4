/// The reply side of the UAPI (wireguard.com/xplatform, "Configuration Protocol"), in the order and
/// with the omissions of wireguard-go: device, then each peer and its allowed IPs, then the errno.
///
/// Each function writes its part completely and returns true, or writes nothing and returns false.
/// A reply of any size can thus pass through a small buffer: if a part does not fit, send what has
/// been written, `rewind`, and write the part again. The buffer carries keys, so it must be in
/// locked memory; `rewind` wipes it.
public enum UAPIReply {
  /// The size of a buffer that can hold any part. The longest part is a peer with all numbers at
  /// their maximum.
  public static let longestPartByteCount = 512

  /// The device's part.
  ///
  /// - Parameters:
  ///   - privateKey: 32 bytes; left out if nil or all zero, which means none.
  ///   - listenPort: left out if 0.
  ///   - fwmark: left out if 0.
  public static func writeDevice(
    privateKey: UnsafeRawPointer?, listenPort: UInt16, fwmark: UInt32,
    to writer: inout ByteWriter
  ) -> Bool {
    guard !writer.hasOverflowed else { return false }
    let start = writer.count
    if let privateKey, !Secret.isZero(privateKey, byteCount: WireGuard.keyByteCount) {
      append("private_key=", key: privateKey, to: &writer)
    }
    if listenPort != 0 { append("listen_port=", UInt64(listenPort), to: &writer) }
    if fwmark != 0 { append("fwmark=", UInt64(fwmark), to: &writer) }
    return keepIfComplete(&writer, from: start)
  }

  /// A peer's part, up to its allowed IPs.
  ///
  /// - Parameter presharedKey: 32 bytes, all zero for none.
  public static func writePeer(
    _ peer: UAPIPeerState, presharedKey: UnsafeRawPointer, to writer: inout ByteWriter
  ) -> Bool {
    guard !writer.hasOverflowed else { return false }
    let start = writer.count
    appendSettings(of: peer.publicKey, peer.endpoint, presharedKey, to: &writer)
    append("last_handshake_time_sec=", peer.lastHandshakeSeconds, to: &writer)
    append("last_handshake_time_nsec=", UInt64(peer.lastHandshakeNanoseconds), to: &writer)
    append("tx_bytes=", peer.sentByteCount, to: &writer)
    append("rx_bytes=", peer.receivedByteCount, to: &writer)
    append("persistent_keepalive_interval=", UInt64(peer.persistentKeepalive), to: &writer)
    return keepIfComplete(&writer, from: start)
  }

  /// One allowed IP of the peer written last.
  public static func writeAllowedIP(_ prefix: IPPrefix, to writer: inout ByteWriter) -> Bool {
    guard !writer.hasOverflowed else { return false }
    let start = writer.count
    writer.append("allowed_ip=")
    AddressText.append(prefix, to: &writer)
    writer.append(newline)
    return keepIfComplete(&writer, from: start)
  }

  /// The end of every reply: `errno=0` or the negated errno, and a blank line.
  public static func writeEnd(_ error: UAPIError?, to writer: inout ByteWriter) -> Bool {
    guard !writer.hasOverflowed else { return false }
    let start = writer.count
    writer.append("errno=")
    if error != nil { writer.append(UInt8(ascii: "-")) }
    writer.append(decimal: UInt32(bitPattern: error?.rawValue ?? 0))
    writer.append("\n\n")
    return keepIfComplete(&writer, from: start)
  }

  // MARK: Parts of both directions

  private static var newline: UInt8 { UInt8(ascii: "\n") }

  static func appendSettings(
    of publicKey: Key, _ endpoint: Endpoint?, _ presharedKey: UnsafeRawPointer,
    to writer: inout ByteWriter
  ) {
    append("public_key=", publicKey, to: &writer)
    append("preshared_key=", key: presharedKey, to: &writer)
    writer.append("protocol_version=1\n")
    if let endpoint {
      writer.append("endpoint=")
      AddressText.append(endpoint, to: &writer)
      writer.append(newline)
    }
  }

  static func append(_ name: StaticString, _ key: Key, to writer: inout ByteWriter) {
    withUnsafeBytes(of: key) { append(name, key: $0.baseAddress!, to: &writer) }
  }

  private static func append(
    _ name: StaticString, key: UnsafeRawPointer, to writer: inout ByteWriter
  ) {
    writer.append(name)
    writer.append(hex: key, byteCount: WireGuard.keyByteCount)
    writer.append(newline)
  }

  static func append(
    _ name: StaticString, _ value: UInt64, to writer: inout ByteWriter
  ) {
    writer.append(name)
    writer.append(decimal: value)
    writer.append(newline)
  }

  /// Keeps the part that starts at `start` if it fits, otherwise removes it and returns false.
  static func keepIfComplete(_ writer: inout ByteWriter, from start: Int) -> Bool {
    guard writer.hasOverflowed else { return true }
    writer.rewind(to: start)
    return false
  }
}

/// A peer in a `get` reply, without its preshared key and its allowed IPs.
public struct UAPIPeerState: Sendable {
  public var publicKey: Key
  /// Nil while none is known.
  public var endpoint: Endpoint?
  /// Time of the last handshake since the Unix epoch; 0 and 0 for never.
  public var lastHandshakeSeconds: UInt64
  /// 0 to 999,999,999.
  public var lastHandshakeNanoseconds: UInt32
  /// Bytes sent, of whole messages (R36).
  public var sentByteCount: UInt64
  /// Bytes received, of whole messages (R36).
  public var receivedByteCount: UInt64
  /// Seconds; 0 is off.
  public var persistentKeepalive: UInt16

  public init(
    publicKey: Key, endpoint: Endpoint?, lastHandshakeSeconds: UInt64,
    lastHandshakeNanoseconds: UInt32, sentByteCount: UInt64, receivedByteCount: UInt64,
    persistentKeepalive: UInt16
  ) {
    self.publicKey = publicKey
    self.endpoint = endpoint
    self.lastHandshakeSeconds = lastHandshakeSeconds
    self.lastHandshakeNanoseconds = lastHandshakeNanoseconds
    self.sentByteCount = sentByteCount
    self.receivedByteCount = receivedByteCount
    self.persistentKeepalive = persistentKeepalive
  }
}
