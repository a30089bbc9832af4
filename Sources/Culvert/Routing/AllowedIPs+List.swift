/// Listing one peer's allowed IPs, in the order they were added.
extension AllowedIPs {
  /// Where a listing stands. It may be kept while the listing waits for a slow reader; a change in
  /// between can cut the listing short or repeat a prefix, which `revision` gives away, but no
  /// more than that.
  struct Cursor: BitwiseCopyable {
    fileprivate var node: UInt32
    fileprivate let peer: UInt32
  }

  /// Before the first prefix of `peer`, which is less than the limit.
  func cursor(of peer: UInt32) -> Cursor {
    Cursor(node: firsts[slot(of: peer)], peer: peer)
  }

  /// The next prefix; nil at the end.
  func next(_ cursor: inout Cursor) -> IPPrefix? {
    guard cursor.node != 0 else { return nil }
    let node = nodes + Int(cursor.node)
    // The prefix that the listing stood at has been taken from the peer meanwhile.
    guard node.pointee.peer == cursor.peer else { return nil }
    cursor.node = links[Int(cursor.node)].next
    let address =
      node.pointee.family == .ipv4
      ? IPAddress(ipv4: UInt32(truncatingIfNeeded: node.pointee.high >> 32))
      : IPAddress(ipv6High: node.pointee.high, low: node.pointee.low)
    return IPPrefix(address, length: Int(node.pointee.length))
  }
}
