/// The allowed IPs of all peers. Longest-prefix matching finds the peer for a destination, and
/// checks that a source belongs to the peer that sent the packet (R2).
///
/// There is one path-compressed binary trie per family. Every node holds a prefix or is a fork with
/// two children; any other node is removed at once. Therefore n prefixes need at most n - 1 nodes
/// that are only forks, and a pool of 2n nodes is sufficient.
///
/// The shape of the trie depends only on the set of prefixes: changes that were staged and then
/// abandoned leave no trace.
struct AllowedIPs: ~Copyable {
  /// Node 0 is never used: index 0 means "none".
  let nodes: UnsafeMutablePointer<AllowedIPNode>
  let links: UnsafeMutablePointer<AllowedIPNode.Links>
  /// The ends of each peer's list of prefixes.
  let firsts: UnsafeMutableBufferPointer<UInt32>
  let lasts: UnsafeMutableBufferPointer<UInt32>
  /// How many prefixes each peer's list has lost; wraps. A listing under way then has to end.
  private let losses: UnsafeMutableBufferPointer<UInt32>
  /// The largest number of prefixes, staged ones included.
  let capacity: Int
  /// The number of prefixes in the table, staged ones included.
  private(set) var count = 0

  private var rootIPv4: UInt32 = 0
  private var rootIPv6: UInt32 = 0
  private var firstFree: UInt32 = 0
  /// Nodes from this one on have never been used, and their memory has not been touched.
  private var firstFresh: UInt32 = 1
  private(set) var nodeCount = 0
  var staging = AllowedIPStaging()

  static let owner: StaticString = "allowed IPs"

  init(carvingFrom arena: inout Arena, limits: Limits) {
    precondition(limits.allowedIPs > 0 && limits.allowedIPs < 1 << 30)
    capacity = limits.allowedIPs
    nodes = arena.carve(AllowedIPNode.self, count: 2 * capacity, owner: AllowedIPs.owner)
      .baseAddress!
    links = arena.carve(AllowedIPNode.Links.self, count: 2 * capacity, owner: AllowedIPs.owner)
      .baseAddress!
    firsts = arena.carve(UInt32.self, count: limits.peers, owner: AllowedIPs.owner)
    lasts = arena.carve(UInt32.self, count: limits.peers, owner: AllowedIPs.owner)
    losses = arena.carve(UInt32.self, count: limits.peers, owner: AllowedIPs.owner)
  }

  /// Empties the table. Must be called once, before anything else.
  mutating func prepare() {
    firsts.initialize(repeating: 0)
    lasts.initialize(repeating: 0)
    losses.initialize(repeating: 0)
    count = 0
    rootIPv4 = 0
    rootIPv6 = 0
    firstFree = 0
    firstFresh = 1
    nodeCount = 0
    staging = AllowedIPStaging()
  }

  // MARK: Routing

  /// The peer with the longest prefix that covers `address`. Takes at most 33 steps for IPv4 and
  /// 129 for IPv6.
  @inline(__always)
  func route(_ address: IPAddress) -> UInt32? {
    let peer = address.family == .ipv4 ? routeIPv4(address.high) : routeIPv6(address)
    return peer == AllowedIPNode.nobody ? nil : peer
  }

  private func routeIPv4(_ bits: UInt64) -> UInt32 {
    var peer = AllowedIPNode.nobody
    var index = rootIPv4
    while index != 0 {
      let node = nodes[index]
      let length = UInt64(node.length)
      // Shifted by 1 first, because `&>>` by 64, for length 0, would shift by 0.
      guard ((bits ^ node.high) >> 1) &>> (63 &- length) == 0 else { break }
      if node.peer != AllowedIPNode.nobody { peer = node.peer }
      index = node.child((bits &>> (63 &- length)) & 1)
    }
    return peer
  }

  private func routeIPv6(_ address: IPAddress) -> UInt32 {
    var peer = AllowedIPNode.nobody
    var index = rootIPv6
    while index != 0 {
      let node = nodes[index]
      let length = Int(node.length)
      guard commonBitCount(node, address.high, address.low) >= length else { break }
      if node.peer != AllowedIPNode.nobody { peer = node.peer }
      index = node.child(bit(length, of: address.high, address.low))
    }
    return peer
  }

  // MARK: Changes

  /// Assigns `prefix` to `peer`, at the end of its list. Another peer that owns the prefix loses
  /// it.
  ///
  /// - Returns: false, with nothing changed, if the table is full.
  mutating func insert(_ prefix: IPPrefix, peer: UInt32) -> Bool {
    let index = place(prefix)
    guard index != 0 else { return false }
    assign(index, to: peer)
    return true
  }

  /// Removes `prefix` from `peer`. Returns false if `peer` does not own it.
  @discardableResult
  mutating func remove(_ prefix: IPPrefix, peer: UInt32) -> Bool {
    let index = find(prefix)
    guard index != 0, nodes[index].peer == peer else { return false }
    unassign(index)
    releaseIfUnheld(index)
    return true
  }

  /// Removes all prefixes of `peer`, in time linear in their number.
  mutating func removeAll(peer: UInt32) {
    var index = firsts[slot(of: peer)]
    while index != 0 {
      let next = links[index].next
      unassign(index)
      releaseIfUnheld(index)
      index = next
    }
  }

  /// Makes `peer` the owner of a node in the trie, and appends the node to the peer's list.
  mutating func assign(_ index: UInt32, to peer: UInt32) {
    unassign(index)
    let slot = slot(of: peer)
    let last = lasts[slot]
    nodes[index].peer = peer
    links[index].previous = last
    links[index].next = 0
    if last == 0 { firsts[slot] = index } else { links[last].next = index }
    lasts[slot] = index
  }

  /// Removes a node from its owner, if it has one. The node stays in the trie.
  mutating func unassign(_ index: UInt32) {
    let peer = nodes[index].peer
    guard peer != AllowedIPNode.nobody else { return }
    let (previous, next) = (links[index].previous, links[index].next)
    if previous == 0 { firsts[Int(peer)] = next } else { links[previous].next = next }
    if next == 0 { lasts[Int(peer)] = previous } else { links[next].previous = previous }
    nodes[index].peer = AllowedIPNode.nobody
    losses[Int(peer)] = losses[Int(peer)] &+ 1
    links[index].next = 0
    links[index].previous = 0
  }

  func slot(of peer: UInt32) -> Int {
    precondition(Int(peer) < firsts.count, "no such peer")
    return Int(peer)
  }

  // MARK: The trie

  /// The node for exactly this prefix; 0 if there is none.
  func find(_ prefix: IPPrefix) -> UInt32 {
    let (high, low) = (prefix.address.high, prefix.address.low)
    let length = Int(prefix.length)
    var index = root(prefix.address.family)
    while index != 0 {
      let node = nodes[index]
      let nodeLength = Int(node.length)
      guard nodeLength <= length, commonBitCount(node, high, low) >= nodeLength else { return 0 }
      if nodeLength == length { return index }
      index = node.child(bit(nodeLength, of: high, low))
    }
    return 0
  }

  /// Finds or makes the node for this prefix. The node is counted as held, so the caller must give
  /// it an owner or an action at once.
  ///
  /// - Returns: 0 if the table is full.
  mutating func place(_ prefix: IPPrefix) -> UInt32 {
    let (high, low) = (prefix.address.high, prefix.address.low)
    let length = Int(prefix.length)
    var parent: UInt32 = 0
    var index = root(prefix.address.family)
    while index != 0 {
      let node = nodes[index]
      let nodeLength = Int(node.length)
      let common = min(commonBitCount(node, high, low), length)
      if common < nodeLength {
        return count < capacity ? fork(above: index, at: common, for: prefix) : 0
      }
      if nodeLength == length { break }
      parent = index
      index = node.child(bit(nodeLength, of: high, low))
    }
    if index != 0, nodes[index].isHeld { return index }
    guard count < capacity else { return 0 }
    count += 1
    if index == 0 {
      index = make(prefix.address, length: length)
      link(index, under: parent)
    }
    return index
  }

  /// Makes a node for `prefix`, which has its first `common` bits in common with the node `index`.
  /// The new node is the parent of that node, or its sibling under a new fork.
  private mutating func fork(above index: UInt32, at common: Int, for prefix: IPPrefix) -> UInt32 {
    let parent = links[index].parent
    let new = make(prefix.address, length: Int(prefix.length))
    var top = new
    if common < Int(prefix.length) {
      top = make(prefix.address.masked(to: common), length: common)
      link(new, under: top)
    }
    link(index, under: top)
    link(top, under: parent)
    count += 1
    return new
  }

  /// Initializes a free node. There always is one, because there are fewer forks than held nodes
  /// and the caller has checked that one more node may be held.
  private mutating func make(_ address: IPAddress, length: Int) -> UInt32 {
    let index: UInt32
    if firstFree != 0 {
      index = firstFree
      firstFree = links[index].parent
    } else {
      precondition(Int(firstFresh) < 2 * capacity, "more nodes than prefixes can need")
      index = firstFresh
      firstFresh += 1
    }
    nodeCount += 1
    (nodes + Int(index)).initialize(
      to: AllowedIPNode(
        high: address.high, low: address.low, children: 0, peer: AllowedIPNode.nobody,
        length: UInt8(length), family: address.family, action: .none))
    (links + Int(index)).initialize(
      to: AllowedIPNode.Links(parent: 0, next: 0, previous: 0, nextStaged: 0))
    return index
  }

  private mutating func link(_ index: UInt32, under parent: UInt32) {
    links[index].parent = parent
    if parent == 0 {
      if nodes[index].family == .ipv4 { rootIPv4 = index } else { rootIPv6 = index }
    } else {
      nodes[parent].setChild(side(of: index, under: parent), to: index)
    }
  }

  /// Removes a node that has no owner and no staged action.
  mutating func releaseIfUnheld(_ index: UInt32) {
    guard !nodes[index].isHeld else { return }
    count -= 1
    prune(index)
  }

  /// Removes an unheld node from the trie, unless it has two children. If its parent is a fork, the
  /// parent then has only one child and is removed too. At most these two nodes are removed.
  private mutating func prune(_ index: UInt32) {
    let node = nodes[index]
    let (left, right) = (node.child(0), node.child(1))
    guard left == 0 || right == 0 else { return }
    let child = left | right
    let parent = links[index].parent
    if child != 0 { links[child].parent = parent }
    if parent == 0 {
      if node.family == .ipv4 { rootIPv4 = child } else { rootIPv6 = child }
    } else {
      nodes[parent].setChild(side(of: index, under: parent), to: child)
    }
    links[index].parent = firstFree
    firstFree = index
    nodeCount -= 1
    if child == 0, parent != 0, !nodes[parent].isHeld { prune(parent) }
  }

  private func root(_ family: IPAddress.Family) -> UInt32 {
    family == .ipv4 ? rootIPv4 : rootIPv6
  }

  private func side(of index: UInt32, under parent: UInt32) -> UInt64 {
    let node = nodes[index]
    return bit(Int(nodes[parent].length), of: node.high, node.low)
  }

  /// The number of leading bits that a node's prefix and an address have in common, 0-128.
  @inline(__always)
  private func commonBitCount(
    _ node: AllowedIPNode, _ high: UInt64, _ low: UInt64
  ) -> Int {
    let difference = high ^ node.high
    return difference != 0
      ? difference.leadingZeroBitCount : 64 &+ (low ^ node.low).leadingZeroBitCount
  }

  /// The bit after the first `position` bits. For a full-length prefix the result does not matter,
  /// because its node has no children.
  @inline(__always)
  private func bit(_ position: Int, of high: UInt64, _ low: UInt64) -> UInt64 {
    ((position < 64 ? high : low) &>> UInt64(truncatingIfNeeded: 63 &- position)) & 1
  }
}

/// The part of a node that routing reads: 32 bytes, so that two fit in a cache line.
struct AllowedIPNode: BitwiseCopyable {
  /// The prefix, left-aligned as in `IPAddress`. The bits after the first `length` are 0.
  var high: UInt64
  var low: UInt64
  /// Both children in one word, so that one is selected by a shift instead of a branch. 0 for none.
  var children: UInt64
  /// The peer that owns the prefix, or `nobody`.
  var peer: UInt32
  var length: UInt8
  var family: IPAddress.Family
  /// The change that `commitStaged` will make.
  var action: Action
  /// Fills the stride (see `Arena.carve`).
  private let padding: UInt8 = 0

  enum Action: UInt8, BitwiseCopyable {
    case none
    case add
    case remove
  }

  /// The part of a node that only changes and listings use. It is separate, so that routing does
  /// not load it into the cache.
  struct Links: BitwiseCopyable {
    /// The parent; 0 for the root. In a free node, the next free node.
    var parent: UInt32
    /// The neighbours in the owner's list, in the order they were added; 0 for none.
    var next: UInt32
    var previous: UInt32
    /// The next staged node; 0 for none.
    var nextStaged: UInt32
  }

  static let nobody = UInt32.max

  /// - Parameter side: the bit after the node's own prefix, 0 or 1.
  @inline(__always)
  func child(_ side: UInt64) -> UInt32 {
    UInt32(truncatingIfNeeded: children &>> (side &* 32))
  }

  @inline(__always)
  mutating func setChild(_ side: UInt64, to node: UInt32) {
    let shift = side &* 32
    children = children & ~(0xffff_ffff &<< shift) | UInt64(node) &<< shift
  }

  /// Whether the node holds a prefix, owned or staged, and is not only a fork.
  @inline(__always)
  var isHeld: Bool { peer != AllowedIPNode.nobody || action != .none }
}

// Indexing by `UInt32`, with addressors, so that a node or its links are used in place, not copied.
extension UnsafeMutablePointer {
  subscript(number: UInt32) -> Pointee {
    @inline(__always) unsafeAddress { UnsafePointer(self + Int(truncatingIfNeeded: number)) }
    @inline(__always) nonmutating unsafeMutableAddress { self + Int(truncatingIfNeeded: number) }
  }
}

/// Lists one peer's allowed IPs, in the order they were added.
extension AllowedIPs {
  /// A position in a listing, which may be kept while the listing waits for a slow reader. New
  /// prefixes are appended, so the listing goes on. If the peer's list loses a prefix meanwhile,
  /// the position is void and the listing ends early (see `isVoid`).
  struct Cursor: BitwiseCopyable {
    fileprivate var node: UInt32
    fileprivate let peer: UInt32
    fileprivate let losses: UInt32
  }

  /// The position before the first prefix of `peer`, which is less than `Limits.peers`.
  func cursor(of peer: UInt32) -> Cursor {
    let slot = slot(of: peer)
    return Cursor(node: firsts[slot], peer: peer, losses: losses[slot])
  }

  /// Whether the peer's list has lost a prefix since the listing started.
  func isVoid(_ cursor: Cursor) -> Bool { losses[Int(cursor.peer)] != cursor.losses }

  /// The next prefix; nil at the end, or if the position is void.
  func next(_ cursor: inout Cursor) -> IPPrefix? {
    guard cursor.node != 0, !isVoid(cursor) else { return nil }
    let node = nodes[cursor.node]
    cursor.node = links[cursor.node].next
    let address =
      node.family == .ipv4
      ? IPAddress(ipv4: UInt32(truncatingIfNeeded: node.high >> 32))
      : IPAddress(ipv6High: node.high, low: node.low)
    return IPPrefix(address, length: Int(node.length))
  }
}
