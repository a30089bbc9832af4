/// One place of the peer table: the peer's public key, and its neighbours in configuration order.
struct PeerEntry: BitwiseCopyable {
  var key0: UInt64
  var key1: UInt64
  var key2: UInt64
  var key3: UInt64
  /// Odd while a peer lives here; moves on when one comes and when one goes.
  var generation: UInt32
  /// Place + 1 of the next peer, or of the next free place; 0 for none.
  var next: UInt32
  var previous: UInt32
  /// Fills the stride (`Arena.carve`).
  private let padding: UInt32 = 0

  @inline(__always)
  var isTaken: Bool { generation & 1 != 0 }
}
