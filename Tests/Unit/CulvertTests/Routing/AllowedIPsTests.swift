import Testing

@testable import Culvert

@Suite struct AllowedIPsTests {
  private let peerCount = 4

  private func prefix(_ address: IPAddress, _ length: Int) -> IPPrefix {
    IPPrefix(address, length: length)!
  }

  /// Few distinct bits at the relevant positions, so that prefixes nest, share ancestors and recur.
  private func randomAddress(_ random: inout SeededGenerator) -> IPAddress {
    if Bool.random(using: &random) {
      return IPAddress(ipv4: UInt32(truncatingIfNeeded: random.next()) & 0xe010_0003)
    }
    return ipv6(random.next() & 0xc000_0000_0000_0003, random.next() & 0xc000_0000_0000_0003)
  }

  private func randomPrefix(_ random: inout SeededGenerator) -> IPPrefix {
    let address = randomAddress(&random)
    let lengths =
      address.family == .ipv4
      ? [0, 1, 2, 3, 8, 12, 24, 30, 31, 32] : [0, 1, 2, 48, 62, 63, 64, 65, 66, 126, 127, 128]
    return prefix(address, lengths.randomElement(using: &random)!)
  }

  private func list(_ table: borrowing AllowedIPs, _ peer: UInt32) -> [IPPrefix] {
    var cursor = table.cursor(of: peer)
    var prefixes: [IPPrefix] = []
    while let prefix = table.next(&cursor) { prefixes.append(prefix) }
    return prefixes
  }

  private func check(
    _ table: borrowing AllowedIPs, _ model: AllowedIPsModel, _ random: inout SeededGenerator
  ) {
    let addresses = (0..<16).map { _ in randomAddress(&random) }
    var routes: [UInt32?] = []
    for address in addresses { routes.append(table.route(address)) }
    #expect(routes == addresses.map { model.route($0) }, "\(addresses)")
    var lists: [[IPPrefix]] = []
    for peer in 0..<UInt32(peerCount) { lists.append(list(table, peer)) }
    #expect(lists == model.peers)
    let (count, nodeCount) = (table.count, table.nodeCount)
    #expect(count == model.held.count && nodeCount == model.nodeCount)
  }

  @Test(arguments: 0..<16) func R2_agreesWithAListOfPrefixes(seed: UInt64) {
    var random = SeededGenerator(seed: seed)
    let capacity = [8, 13, 32, 64][Int(seed % 4)]
    let memory = TestArena()
    var table = AllowedIPs(
      carvingFrom: &memory.arena, limits: .shrunken(peers: peerCount, allowedIPs: capacity))
    table.prepare()
    var model = AllowedIPsModel(peers: peerCount, capacity: capacity)
    for _ in 0..<1000 {
      let prefix = randomPrefix(&random)
      let peer = UInt32.random(in: 0..<UInt32(peerCount), using: &random)
      switch random.next() % 32 {
      case 0..<9:
        let (done, expected) = (table.insert(prefix, peer: peer), model.insert(prefix, peer: peer))
        #expect(done == expected)
      case 9..<14:
        let (done, expected) = (table.remove(prefix, peer: peer), model.remove(prefix, peer: peer))
        #expect(done == expected)
      case 14:
        table.removeAll(peer: peer)
        model.peers[Int(peer)] = []
      case 15..<24:
        let (done, expected) = (table.stage(prefix, add: true), model.stage(prefix, add: true))
        #expect(done == expected)
      case 24..<28:
        let (done, expected) = (table.stage(prefix, add: false), model.stage(prefix, add: false))
        #expect(done == expected)
      case 28:
        table.stageReplaceAll()
        model.stageReplaceAll()
      case 29, 30:
        table.commitStaged(to: peer)
        model.commitStaged(to: peer)
      default:
        table.abandonStaged()
        model.abandonStaged()
      }
      check(table, model, &random)
    }
    table.abandonStaged()
    for peer in 0..<UInt32(peerCount) { table.removeAll(peer: peer) }
    let (count, nodeCount) = (table.count, table.nodeCount)
    #expect(count == 0 && nodeCount == 0)
    withExtendedLifetime(memory) {}
  }

  @Test func theLongestPrefixWins() {
    let memory = TestArena()
    var table = AllowedIPs(carvingFrom: &memory.arena, limits: .shrunken())
    table.prepare()
    expect(table.insert(prefix(ipv4(0, 0, 0, 0), 0), peer: 0))
    expect(table.insert(prefix(ipv4(10, 0, 0, 0), 8), peer: 1))
    expect(table.insert(prefix(ipv4(10, 1, 2, 3), 32), peer: 2))
    expect(table.insert(prefix(ipv6(0, 0), 0), peer: 3))
    let routes = [
      table.route(ipv4(8, 8, 8, 8)), table.route(ipv4(10, 9, 9, 9)), table.route(ipv4(10, 1, 2, 3)),
      table.route(ipv4(10, 1, 2, 2)), table.route(ipv6(0x0a01_0203_0000_0000, 0)),
    ]
    #expect(routes == [0, 1, 2, 1, 3])
    withExtendedLifetime(memory) {}
  }

  @Test func stagedPrefixesAreInvisibleAndAbandonedOnesLeaveNoTrace() {
    let memory = TestArena()
    var table = AllowedIPs(carvingFrom: &memory.arena, limits: .shrunken(allowedIPs: 4))
    table.prepare()
    expect(table.insert(prefix(ipv4(10, 0, 0, 0), 8), peer: 0))
    table.stageReplaceAll()
    expect(table.stage(prefix(ipv4(10, 1, 0, 0), 16), add: true))
    expect(table.stage(prefix(ipv4(10, 0, 0, 0), 8), add: true))
    expect(table.stage(prefix(ipv4(11, 0, 0, 0), 8), add: true))
    expect(table.stage(prefix(ipv4(12, 0, 0, 0), 8), add: true))
    expect(!table.stage(prefix(ipv4(13, 0, 0, 0), 8), add: true), "full")
    expect(table.stage(prefix(ipv4(13, 0, 0, 0), 8), add: false), "nothing to remove, no room used")
    expect(table.route(ipv4(10, 1, 1, 1)) == 0 && table.route(ipv4(11, 1, 1, 1)) == nil)
    table.abandonStaged()
    expect(list(table, 0) == [prefix(ipv4(10, 0, 0, 0), 8)])
    expect(table.count == 1 && table.nodeCount == 1 && !table.isStaging)
    withExtendedLifetime(memory) {}
  }

  @Test func listingGoesOnWhereItStoodAndSurvivesChanges() {
    let memory = TestArena()
    var table = AllowedIPs(carvingFrom: &memory.arena, limits: .shrunken())
    table.prepare()
    let prefixes = (1...6).map { prefix(ipv4(10, 0, 0, UInt8($0)), 32) }
    for prefix in prefixes { expect(table.insert(prefix, peer: 1)) }
    var cursor = table.cursor(of: 1)
    expect(table.next(&cursor) == prefixes[0])
    expect(table.next(&cursor) == prefixes[1])
    let kept = cursor
    expect(table.next(&cursor) == prefixes[2])
    cursor = kept
    expect(table.next(&cursor) == prefixes[2])
    // The prefix at the cursor moves to another peer.
    expect(table.insert(prefixes[3], peer: 2))
    expect(table.next(&cursor) == nil)
    withExtendedLifetime(memory) {}
  }

  /// 100,000 prefixes in one section of a request: quadratic work would take minutes.
  @Test func aHugeSectionCommitsInLinearTime() {
    let limits = Limits.shrunken(peers: 2, allowedIPs: 131_072)
    let memory = TestArena(byteCount: 16 << 20)
    var table = AllowedIPs(carvingFrom: &memory.arena, limits: limits)
    table.prepare()
    var random = SeededGenerator(seed: 6)
    var drawn: Set<IPPrefix> = []
    while drawn.count < 100_000 {
      drawn.insert(prefix(IPAddress(ipv4: UInt32(truncatingIfNeeded: random.next())), 32))
    }
    let start = ContinuousClock.now
    var isFull = false
    for round in 0..<2 as Range<UInt32> {
      table.stageReplaceAll()
      for prefix in drawn where !table.stage(prefix, add: true) { isFull = true }
      table.commitStaged(to: round)
    }
    table.stageReplaceAll()
    table.commitStaged(to: 1)
    let duration = ContinuousClock.now - start
    #expect(!isFull && duration < .seconds(20))
    let (count, nodeCount) = (table.count, table.nodeCount)
    #expect(count == 0 && nodeCount == 0)
    withExtendedLifetime(memory) {}
  }
}

/// Allowed IPs as lists: the longest prefix is found by checking all of them.
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

  /// Nodes of a path-compressed trie over the held prefixes: the prefixes, and the points where two
  /// of them diverge.
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

  /// The longest prefix that both have. Counts equal bits, since a loop over all lengths would take
  /// most of the test's time.
  private func meet(_ first: IPPrefix, _ second: IPPrefix) -> IPPrefix {
    let (one, two) = (first.address, second.address)
    let high = (one.high ^ two.high).leadingZeroBitCount
    let equal = high < 64 ? high : 64 + (one.low ^ two.low).leadingZeroBitCount
    let length = min(Int(first.length), Int(second.length), equal)
    return IPPrefix(one, length: length)!
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
