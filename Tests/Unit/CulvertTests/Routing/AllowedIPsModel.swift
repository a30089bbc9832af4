@testable import Culvert

/// Allowed IPs as lists: longest prefix by looking at all of them.
struct AllowedIPsModel {
  let capacity: Int
  var peers: [[IPPrefix]]
  var staged: [(prefix: IPPrefix, add: Bool)] = []
  var replacesAll = false

  init(peers: Int, capacity: Int) {
    self.capacity = capacity
    self.peers = Array(repeating: [], count: peers)
  }

  /// Prefixes that take room.
  var held: Set<IPPrefix> {
    Set(peers.joined()).union(staged.map(\.prefix))
  }

  /// Nodes of a path-compressed trie over the held prefixes: these, and where two of them part.
  var nodeCount: Int {
    let held = Array(held)
    var nodes = Set(held)
    for (index, first) in held.enumerated() {
      for second in held[..<index] where first.address.family == second.address.family {
        nodes.insert(meet(first, second))
      }
    }
    return nodes.count
  }

  private func meet(_ first: IPPrefix, _ second: IPPrefix) -> IPPrefix {
    var length = Int(min(first.length, second.length))
    while first.address.masked(to: length) != second.address.masked(to: length) { length -= 1 }
    return IPPrefix(first.address, length: length)!
  }

  func route(_ address: IPAddress) -> UInt32? {
    var best: (length: UInt8, peer: UInt32)?
    for (peer, prefixes) in peers.enumerated() {
      for prefix in prefixes where prefix.address.family == address.family {
        guard address.masked(to: Int(prefix.length)) == prefix.address else { continue }
        if best == nil || best!.length < prefix.length { best = (prefix.length, UInt32(peer)) }
      }
    }
    return best?.peer
  }

  mutating func insert(_ prefix: IPPrefix, peer: UInt32) -> Bool {
    guard held.contains(prefix) || held.count < capacity else { return false }
    for other in peers.indices { peers[other].removeAll { $0 == prefix } }
    peers[Int(peer)].append(prefix)
    return true
  }

  mutating func remove(_ prefix: IPPrefix, peer: UInt32) -> Bool {
    guard peers[Int(peer)].contains(prefix) else { return false }
    peers[Int(peer)].removeAll { $0 == prefix }
    return true
  }

  mutating func stage(_ prefix: IPPrefix, add: Bool) -> Bool {
    if let index = staged.firstIndex(where: { $0.prefix == prefix }) {
      staged[index].add = add
      return true
    }
    guard held.contains(prefix) || (add && held.count < capacity) else { return !add }
    staged.append((prefix, add))
    return true
  }

  mutating func stageReplaceAll() {
    staged = []
    replacesAll = true
  }

  mutating func commitStaged(to peer: UInt32) {
    if replacesAll { peers[Int(peer)] = [] }
    let changes = staged
    for change in changes {
      if change.add {
        _ = insert(change.prefix, peer: peer)
      } else {
        _ = remove(change.prefix, peer: peer)
      }
    }
    abandonStaged()
  }

  mutating func abandonStaged() {
    staged = []
    replacesAll = false
  }
}
