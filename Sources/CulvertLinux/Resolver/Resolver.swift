import CLinux
import Culvert

/// Looks up the host names of endpoints within the event loop, and never blocks. It replaces
/// getaddrinfo(3), which does not work in a static binary: it reads /etc/hosts, and then asks the
/// name servers of /etc/resolv.conf over UDP, or over TCP if an answer is too long (RFC 1035
/// section 7, RFC 5452 section 9, RFC 6891).
///
/// Up to four names are looked up at the same time. Each query is sent from a new socket, and thus
/// from a new port, so that an attacker who has not seen the query must guess both the port and its
/// id.
///
/// `Driver` runs it at `deadline`, passes on events, and applies the outcomes.
struct Resolver: ~Copyable {
  /// The outermost sockets' firewall mark: queries are sent as the tunnel's datagrams are.
  var mark: UInt32 = 0
  /// When `run` must be called next.
  private(set) var deadline = Deadline.never
  /// Number of names.
  private(set) var count = 0

  private let memory: ResolverMemory
  private let files: ResolverFiles
  private let timeout: UInt64
  private var servers = NameServers()
  /// The server that answered last. It is asked first.
  private var goodServer: Endpoint?
  private var entropy: Entropy
  /// `Clock.suspended` at the last initiation.
  private var suspended = Clock.suspended()

  /// Lookups at the same time.
  static let lookupCount = 4
  /// Room for an answer. A longer answer over TCP is read up to here, which is enough for more
  /// addresses than are used.
  static let bufferByteCount = 2048
  /// A longer suspension counts as a change of the network, in nanoseconds.
  private static let longSuspension = 5 * nanosecondsPerSecond

  /// A lookup with its socket.
  struct Slot: BitwiseCopyable {
    /// The index of the name; -1 for none.
    var index = -1
    /// -1 for none.
    var descriptor: Int32 = -1
    var lookup: NameLookup
    var hasSent = false
    /// Bytes received over TCP.
    var receivedCount = 0
  }

  init(
    _ memory: ResolverMemory, files: ResolverFiles = ResolverFiles(),
    timeoutMilliseconds: UInt64 = 2000, entropy: Entropy = .sodium
  ) {
    self.memory = memory
    self.files = files
    timeout = timeoutMilliseconds * nanosecondsPerMillisecond
    self.entropy = entropy
    let none = NameLookup(
      serverCount: 1, firstServer: 0, routes: NameLookup.Routes(ipv4: true, ipv6: true), timeout: 0)
    for slot in 0..<Resolver.lookupCount {
      (memory.slots + slot).initialize(to: Slot(lookup: none))
    }
  }

  deinit {
    for slot in 0..<Resolver.lookupCount { Resolver.close(memory.slots[slot].descriptor) }
  }

  private static func close(_ descriptor: Int32) {
    if descriptor >= 0 { _ = clinux_file_close(descriptor) }
  }

  // MARK: Names

  subscript(index: Int) -> NamedPeer {
    unsafeAddress { UnsafePointer(memory.peers + index) }
    unsafeMutableAddress { memory.peers + index }
  }

  /// The name of an entry.
  func name(_ index: Int) -> UnsafeRawBufferPointer {
    UnsafeRawBufferPointer(
      start: memory.text(index), count: memory.peers[index].nameByteCount)
  }

  /// Adds a peer's name, which is looked up at the next `run`. False if there is no room.
  ///
  /// - Parameters:
  ///   - name: as returned by `ConfigHostName.name`; copied.
  ///   - settings: `Tunnel.endpointSettings` of the peer.
  mutating func add(
    _ name: UnsafeRawBufferPointer, port: UInt16, of publicKey: Key, _ id: PeerID, hop: Int,
    settings: UInt32, at now: Instant
  ) -> Bool {
    let index = unusedIndex ?? count
    guard index < memory.capacity, name.count <= ConfigHostName.longestByteCount,
      let source = name.baseAddress
    else { return false }
    memory.text(index).copyMemory(from: source, byteCount: name.count)
    (memory.peers + index).initialize(
      to: NamedPeer(
        publicKey: publicKey, id: id, hop: hop, port: port, nameByteCount: name.count,
        settings: settings, at: now))
    count = max(count, index + 1)
    settle()
    return true
  }

  /// The index of a forgotten name that no lookup is for.
  private var unusedIndex: Int? {
    for index in 0..<count where memory.peers[index].isForgotten && slot(of: index) == nil {
      return index
    }
    return nil
  }

  private func slot(of index: Int) -> Int? {
    for slot in 0..<Resolver.lookupCount where memory.slots[slot].index == index { return slot }
    return nil
  }

  /// Forgets the names of a hop, whose configuration file is read again, and ends their lookups.
  mutating func removeNames(of hop: Int) {
    let peers = memory.peers
    let slots = memory.slots
    for index in 0..<count where peers[index].hop == hop {
      peers[index].forget()
      guard let slot = slot(of: index) else { continue }
      closeSocket(slot)
      slots[slot].index = -1
    }
    settle()
  }

  /// The index of a peer's name; nil if it has none.
  func find(_ publicKey: Key, hop: Int) -> Int? {
    for index in 0..<count
    where memory.peers[index].publicKey == publicKey && memory.peers[index].hop == hop
      && !memory.peers[index].isForgotten
    {
      return index
    }
    return nil
  }

  /// A peer was sent an initiation; see `NamedPeer`.
  mutating func didSendInitiation(_ index: Int, _ initiations: Int, at now: Instant) -> Bool {
    let suspended = Clock.suspended()
    if suspended > self.suspended + Resolver.longSuspension { networkChanged(at: now) }
    self.suspended = suspended
    let peers = memory.peers
    let triesNext = peers[index].didSendInitiation(initiations, at: now)
    settle()
    return triesNext
  }

  /// The network has changed: names without an address are looked up soon, and those of silent
  /// peers at their next initiation. The others are left alone.
  mutating func networkChanged(at now: Instant) {
    let peers = memory.peers
    for index in 0..<count { peers[index].networkChanged(at: now) }
    settle()
  }

  // MARK: Lookups

  /// Starts lookups that are due, and gives up answers that are overdue.
  mutating func run(_ epoll: borrowing Epoll, at now: Instant) {
    let slots = memory.slots
    for slot in 0..<Resolver.lookupCount
    where slots[slot].index >= 0 && slots[slot].lookup.deadline.isDue(at: now) {
      let step = slots[slot].lookup.didFail(at: now, &entropy)
      carryOut(step, slot, epoll, at: now)
    }
    startDue(epoll, at: now)
  }

  /// Handles an event of a lookup's socket.
  mutating func handle(_ slot: Int, _ epoll: borrowing Epoll, at now: Instant) {
    guard slot >= 0, slot < Resolver.lookupCount, memory.slots[slot].index >= 0 else { return }
    let step =
      memory.slots[slot].lookup.isStream
      ? serveStream(slot, epoll, at: now) : serveDatagrams(slot, at: now)
    carryOut(step, slot, epoll, at: now)
    startDue(epoll, at: now)
  }

  private mutating func startDue(_ epoll: borrowing Epoll, at now: Instant) {
    let peers = memory.peers
    while let slot = freeSlot, let index = firstDue(at: now) {
      peers[index].didStart()
      start(index, slot, epoll, at: now)
    }
    settle()
  }

  private var freeSlot: Int? {
    for slot in 0..<Resolver.lookupCount where memory.slots[slot].index < 0 { return slot }
    return nil
  }

  /// The name that has been due for longest.
  private func firstDue(at now: Instant) -> Int? {
    var first: Int?
    for index in 0..<count where memory.peers[index].deadline.isDue(at: now) {
      if let first, memory.peers[first].notBefore <= memory.peers[index].notBefore { continue }
      first = index
    }
    return first
  }

  private mutating func start(
    _ index: Int, _ slot: Int, _ epoll: borrowing Epoll, at now: Instant
  ) {
    let peers = memory.peers
    let slots = memory.slots
    var sort = CandidateSort(mark: mark)
    files.findInHosts(name(index), port: peers[index].port, &sort)
    if sort.list.count > 0 {
      peers[index].didFind(sort.list, secondsToLive: 0, at: now, &entropy)
      return
    }
    servers = files.readServers()
    // Any global address will do, because only the existence of a route matters.
    let ipv4 = Endpoint(address: IPAddress(ipv4: 0xc000_0201), port: 53)
    let ipv6 = Endpoint(address: IPAddress(ipv6High: 0x2001_0db8_0000_0000, low: 1), port: 53)
    let routes = NameLookup.Routes(
      ipv4: CandidateSort.hasRoute(to: ipv4, mark: mark),
      ipv6: CandidateSort.hasRoute(to: ipv6, mark: mark))
    slots[slot].index = index
    slots[slot].lookup = NameLookup(
      serverCount: servers.count, firstServer: servers.index(of: goodServer), routes: routes,
      timeout: timeout)
    let step = slots[slot].lookup.begin(at: now, &entropy)
    carryOut(step, slot, epoll, at: now)
  }

  /// Carries out a step, and those that follow if no query can be sent. Their number is limited by
  /// `NameLookup`.
  private mutating func carryOut(
    _ first: NameLookup.Step, _ slot: Int, _ epoll: borrowing Epoll, at now: Instant
  ) {
    let slots = memory.slots
    var step = first
    while step == .ask {
      if ask(slot, epoll) { return }
      step = slots[slot].lookup.didFail(at: now, &entropy)
    }
    if step == .end { finish(slot, at: now) }
  }

  private mutating func finish(_ slot: Int, at now: Instant) {
    let slots = memory.slots
    let peers = memory.peers
    closeSocket(slot)
    let index = slots[slot].index
    slots[slot].index = -1
    let lookup = slots[slot].lookup
    if let server = lookup.answeringServer, server < servers.count { goodServer = servers[server] }
    var sort = CandidateSort(mark: mark)
    let port = peers[index].port
    for place in 0..<lookup.ipv6.count {
      sort.offer(Endpoint(address: lookup.ipv6[place], port: port))
    }
    for place in 0..<lookup.ipv4.count {
      sort.offer(Endpoint(address: lookup.ipv4[place], port: port))
    }
    let list = sort.list
    if list.count > 0 {
      peers[index].didFind(list, secondsToLive: lookup.secondsToLive, at: now, &entropy)
    } else {
      peers[index].didFail(lookup.failure, at: now, &entropy)
    }
  }

  /// Computes `deadline`. While all lookups are busy, none can start.
  private mutating func settle() {
    var next = Deadline.never
    var isFree = false
    for slot in 0..<Resolver.lookupCount {
      if memory.slots[slot].index < 0 {
        isFree = true
      } else {
        next = min(next, memory.slots[slot].lookup.deadline)
      }
    }
    if isFree {
      for index in 0..<count { next = min(next, memory.peers[index].deadline) }
    }
    deadline = next
  }

  // MARK: Sockets

  private func closeSocket(_ slot: Int) {
    let slots = memory.slots
    Resolver.close(slots[slot].descriptor)
    slots[slot].descriptor = -1
  }

  /// Opens a socket to the server and sends the query, or waits for the connection. False if that
  /// fails.
  private func ask(_ slot: Int, _ epoll: borrowing Epoll) -> Bool {
    let slots = memory.slots
    closeSocket(slot)
    slots[slot].hasSent = false
    slots[slot].receivedCount = 0
    let lookup = slots[slot].lookup
    // The file may have been read again since the lookup began, and list fewer servers.
    var target = clinux_datagram(to: servers[lookup.server % max(1, servers.count)])
    let raw = clinux_resolve_open(&target, mark, lookup.isStream ? 1 : 0)
    guard raw >= 0 else { return false }
    slots[slot].descriptor = raw
    do throws(SystemError) {
      try epoll.add(
        raw, lookup.isStream ? .writable : .readable, token: Token.lookup(slot))
    } catch {
      return false
    }
    return lookup.isStream || send(slot, prefixByteCount: 0)
  }

  /// Sends the query; over TCP, it follows its length in two bytes (RFC 1035 section 4.2.2).
  private func send(_ slot: Int, prefixByteCount: Int) -> Bool {
    let slots = memory.slots
    let buffer = memory.buffer(slot)
    let query = slots[slot].lookup.query(name(slots[slot].index))
    let count = query.write(
      to: UnsafeMutableRawBufferPointer(rebasing: buffer[prefixByteCount...]))
    if prefixByteCount > 0 {
      buffer[0] = UInt8(truncatingIfNeeded: count >> 8)
      buffer[1] = UInt8(truncatingIfNeeded: count)
    }
    let total = prefixByteCount + count
    slots[slot].hasSent = true
    return clinux_file_write(slots[slot].descriptor, buffer.baseAddress, total) == total
  }

  private mutating func serveDatagrams(_ slot: Int, at now: Instant) -> NameLookup.Step {
    let slots = memory.slots
    let buffer = memory.buffer(slot)
    // Enough for one call; epoll reports the rest.
    for _ in 0..<8 {
      let count = clinux_file_read(slots[slot].descriptor, buffer.baseAddress, buffer.count)
      if count == -Int(SystemError.EAGAIN.code) { return .wait }
      // ECONNREFUSED and the like: no server is listening.
      if count < 0 { return slots[slot].lookup.didFail(at: now, &entropy) }
      let step = slots[slot].lookup.didReceive(
        UnsafeRawBufferPointer(rebasing: buffer[..<count]), for: name(slots[slot].index), at: now,
        &entropy)
      if step != .wait { return step }
    }
    return .wait
  }

  private mutating func serveStream(
    _ slot: Int, _ epoll: borrowing Epoll, at now: Instant
  ) -> NameLookup.Step {
    let slots = memory.slots
    if !slots[slot].hasSent {
      guard send(slot, prefixByteCount: 2) else {
        return slots[slot].lookup.didFail(at: now, &entropy)
      }
      try? epoll.modify(slots[slot].descriptor, .readable, token: Token.lookup(slot))
      return .wait
    }
    let buffer = memory.buffer(slot)
    let received = slots[slot].receivedCount
    let read = clinux_file_read(
      slots[slot].descriptor, buffer.baseAddress! + received, buffer.count - received)
    if read == -Int(SystemError.EAGAIN.code) { return .wait }
    guard read > 0 else { return slots[slot].lookup.didFail(at: now, &entropy) }
    let total = received + read
    slots[slot].receivedCount = total
    guard total >= 2 else { return .wait }
    let length = Int(buffer[0]) << 8 | Int(buffer[1])
    let wanted = min(length, buffer.count - 2)
    guard total - 2 >= wanted else { return .wait }
    let step = slots[slot].lookup.didReceive(
      UnsafeRawBufferPointer(rebasing: buffer[2..<(2 + wanted)]), for: name(slots[slot].index),
      isCut: wanted < length, at: now, &entropy)
    // There is only one query on this connection.
    return step == .wait ? slots[slot].lookup.didFail(at: now, &entropy) : step
  }
}

/// The memory of the resolver, carved from the arena.
struct ResolverMemory: BitwiseCopyable {
  let peers: UnsafeMutablePointer<NamedPeer>
  let slots: UnsafeMutablePointer<Resolver.Slot>
  /// Number of names.
  let capacity: Int
  private let texts: UnsafeMutableRawPointer
  private let buffers: UnsafeMutableRawPointer

  private static let textByteCount = 256

  init(carvingFrom arena: inout Arena, capacity: Int) {
    self.capacity = capacity
    // Carved as bytes, because zeroes are no valid value of these types.
    let peerByteCount = Arena.aligned(capacity * MemoryLayout<NamedPeer>.stride)
    let slotByteCount = Arena.aligned(Resolver.lookupCount * MemoryLayout<Resolver.Slot>.stride)
    let textByteCount = capacity * ResolverMemory.textByteCount
    let base = arena.carveBytes(
      peerByteCount + slotByteCount + textByteCount
        + Resolver.lookupCount * Resolver.bufferByteCount, owner: "host names"
    ).baseAddress!
    peers = base.assumingMemoryBound(to: NamedPeer.self)
    slots = (base + peerByteCount).assumingMemoryBound(to: Resolver.Slot.self)
    texts = base + peerByteCount + slotByteCount
    buffers = texts + textByteCount
  }

  func text(_ index: Int) -> UnsafeMutableRawPointer {
    texts + index * ResolverMemory.textByteCount
  }

  func buffer(_ slot: Int) -> UnsafeMutableRawBufferPointer {
    UnsafeMutableRawBufferPointer(
      start: buffers + slot * Resolver.bufferByteCount, count: Resolver.bufferByteCount)
  }
}

/// Sorts a name's endpoints into the order in which they are tried: IPv6 and IPv4 in turn, and only
/// those with a route, unless there are none.
struct CandidateSort: BitwiseCopyable {
  private let mark: UInt32
  private var ipv4 = CandidateList()
  private var ipv6 = CandidateList()
  private var unroutedIPv4 = CandidateList()
  private var unroutedIPv6 = CandidateList()

  init(mark: UInt32) {
    self.mark = mark
  }

  /// Ignores addresses that do not belong to a single host.
  mutating func offer(_ endpoint: Endpoint) {
    guard !endpoint.address.isUnspecified, !endpoint.address.isMulticast else { return }
    let isIPv4 = endpoint.address.family == .ipv4
    if CandidateSort.hasRoute(to: endpoint, mark: mark) {
      if isIPv4 { ipv4.append(endpoint) } else { ipv6.append(endpoint) }
    } else {
      if isIPv4 { unroutedIPv4.append(endpoint) } else { unroutedIPv6.append(endpoint) }
    }
  }

  var list: CandidateList {
    let routed = CandidateSort.merged(ipv6, ipv4)
    return routed.count > 0 ? routed : CandidateSort.merged(unroutedIPv6, unroutedIPv4)
  }

  private static func merged(_ first: CandidateList, _ second: CandidateList) -> CandidateList {
    var list = CandidateList()
    for index in 0..<max(first.count, second.count) {
      if index < first.count { list.append(first[index]) }
      if index < second.count { list.append(second[index]) }
    }
    return list
  }

  /// Whether the kernel has a route; nothing is sent.
  static func hasRoute(to endpoint: Endpoint, mark: UInt32) -> Bool {
    var target = clinux_datagram(to: endpoint)
    return FileDescriptor(taking: clinux_resolve_open(&target, mark, 0)).isOpen
  }
}
