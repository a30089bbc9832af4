/// What a receiver index stands for.
enum IndexKind: UInt8 {
  /// The handshake in progress of its peer.
  case handshake = 1
  /// One of its peer's three keypairs.
  case keypair = 2
}
