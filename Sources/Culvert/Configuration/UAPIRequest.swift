/// The parts of a `set` request of the UAPI that differ from a reply's; the device's part and the
/// allowed IPs are those of `UAPIReply`, under the same rules.
public enum UAPIRequest {
  /// A peer's part, up to the allowed IPs, which replace those that it has.
  ///
  /// - Parameters:
  ///   - endpoint: nil to leave the peer's as it is.
  ///   - presharedKey: 32 bytes, all zero for none.
  ///   - persistentKeepalive: in seconds; 0 for none.
  public static func writePeer(
    _ publicKey: Key, _ endpoint: Endpoint?, presharedKey: UnsafeRawPointer,
    persistentKeepalive: UInt16, to writer: inout ByteWriter
  ) -> Bool {
    guard !writer.hasOverflowed else { return false }
    let start = writer.count
    UAPIReply.appendSettings(of: publicKey, endpoint, presharedKey, to: &writer)
    UAPIReply.append("persistent_keepalive_interval=", UInt64(persistentKeepalive), to: &writer)
    writer.append("replace_allowed_ips=true\n")
    return UAPIReply.keepIfComplete(&writer, from: start)
  }

  /// The part that removes a peer.
  public static func writeRemoval(of publicKey: Key, to writer: inout ByteWriter) -> Bool {
    guard !writer.hasOverflowed else { return false }
    let start = writer.count
    UAPIReply.append("public_key=", publicKey, to: &writer)
    writer.append("remove=true\n")
    return UAPIReply.keepIfComplete(&writer, from: start)
  }
}
