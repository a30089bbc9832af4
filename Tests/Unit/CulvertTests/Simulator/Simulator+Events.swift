#if !ONE_MODULE
  @testable import Culvert
#endif

/// What happens to hosts, and what their users do.
extension Simulator {
  /// Something that an event has left to be done.
  struct Task {
    enum Work {
      case start(clock: UInt64)
      case setUp
      /// Configure the other host with its current key, and the current preshared key.
      case introduce(Int)
      case setPresharedKey(Int)
    }

    var due: Instant
    var host: Int
    var work: Work
  }

  // MARK: Keys and peers

  func makePrivateKey() -> [UInt8] {
    keyCount += 1
    var generator = plan.generator(8, keyCount)
    let key = generator.bytes(WireGuard.keyByteCount)
    keys.add(key, of: KeyBook.publicKey(of: key))
    return key
  }

  private func presharedKey(_ left: Int, _ right: Int) -> [UInt8] {
    presharedKeys[[min(left, right), max(left, right)]]
      ?? [UInt8](repeating: 0, count: WireGuard.keyByteCount)
  }

  /// Configures `other` as a peer of the host, in place of one with an old key.
  func introduce(_ other: Int, at number: Int, keepalive: UInt16? = nil) {
    let host = hosts[number]
    let key = hosts[other].publicKey
    let old = host.settings.peer(of: other)
    guard old?.key != key else { return }
    if let old { host.remove(old.key) }
    let peer = HostSettings.PeerSettings(
      host: other, key: key, presharedKey: presharedKey(number, other),
      endpoint: hosts[other].endpoint, keepalive: keepalive ?? old?.keepalive ?? 0)
    host.add(peer, routing: other, at: now)
    touch(number)
  }

  // MARK: Tasks

  private func after(_ seconds: Int, _ host: Int, _ work: Task.Work) {
    let due = now.advanced(by: UInt64(seconds) * nanosecondsPerSecond)
    let task = Task(due: due, host: host, work: work)
    if seconds == 0 { run(task) } else { tasks.append(task) }
  }

  /// - Parameter all: also those that are not due yet.
  func runTasks(all: Bool = false) {
    let due = tasks.filter { all || $0.due <= now }
    guard !due.isEmpty else { return }
    tasks.removeAll { all || $0.due <= now }
    for task in due { run(task) }
  }

  private func run(_ task: Task) {
    let host = hosts[task.host]
    note("\(task.host): \(task.work)")
    switch task.work {
    case .start(let clock): if !host.isRunning { host.start(at: now, clock: clock) }
    case .setUp: host.setUp(true, at: now)
    case .introduce(let other): introduce(other, at: task.host)
    case .setPresharedKey(let other):
      host.setPresharedKey(presharedKey(task.host, other), of: hosts[other].publicKey)
    }
    touch(task.host)
  }

  // MARK: Events

  func causeEvents(_ second: UInt64) {
    for fault in Fault.allCases where fault.isEvent && plan.faults.contains(fault) {
      let event = SimulationPlan.Event(second: second, fault: fault)
      var generator = plan.generator(9 + UInt64(fault.rawValue), second)
      guard generator.happens(plan.chance(of: fault)), plan.happens(event) else { continue }
      happened.append(event)
      note(event.text)
      cause(fault, generator.below(plan.hostCount), &generator)
      if plan.isPlanted(in: happened) { fail("a planted failure", 0) }
    }
  }

  private func cause(_ fault: Fault, _ number: Int, _ generator: inout SeededGenerator) {
    let host = hosts[number]
    touch(number)
    switch fault {
    case .partition:
      // The end of one, or another one.
      let ends = !network.sides.isEmpty || generator.next() % 4 == 0
      network.sides = ends ? [] : hosts.map { _ in generator.next() % 3 == 0 }
    case .flood: flood(host, &generator)
    case .wallClock: moveWallClock(of: host, &generator)
    case .leap:
      host.leap(UInt64(1 + generator.below(700)) * nanosecondsPerSecond)
      lastLeap = now
    case .suspension:
      host.resume = now.advanced(by: UInt64(1 + generator.below(100)) * nanosecondsPerSecond)
    case .crash:
      // Preferably while it stores something.
      let writing = hosts.filter { $0.isRunning && $0.disk.isWriting }
      crash(writing.isEmpty ? host : writing.pick(&generator), &generator)
    case .roaming: roam(host, &generator)
    case .flap:
      host.setUp(false, at: now)
      after(generator.below(20), number, .setUp)
    case .storage:
      let duration = UInt64(1 + generator.below(100)) * nanosecondsPerSecond
      host.disk.hang(until: now.advanced(by: duration))
    case .mtu:
      let mtu = [0, 68, 1279, 1280, 1420, 65_535].pick(&generator)
      host.setMTU(min(mtu, host.limits.maximumMTU))
    case .privateKeys: renewPrivateKey(of: host, &generator)
    case .peers, .presharedKeys, .endpoints, .keepalives, .allowedIPs:
      configure(fault, host, &generator)
    case .loss, .duplication, .delay, .corruption, .truncation, .replay, .refusal, .forgery,
      .segments, .stateLoss:
      break
    }
  }

  /// Messages from the attacker, who knows the host's public key but no other secret.
  private func flood(_ host: SimulatedHost, _ generator: inout SeededGenerator) {
    for _ in 0..<1 + generator.below(2 * min(host.limits.handshakeRing, 32)) {
      let type = [1, 1, 1, 2, 3, 4].pick(&generator)
      let byteCount = [
        0, WireGuard.initiationByteCount, WireGuard.responseByteCount,
        WireGuard.cookieReplyByteCount, WireGuard.keepaliveByteCount,
      ][type]
      var message = generator.bytes(byteCount)
      message.replaceSubrange(0..<4, with: [UInt8(type), 0, 0, 0])
      if type < 3 { message = Simulator.withMAC1(message, for: host.publicKey) }
      network.inject(message, to: host.endpoint, at: now)
    }
  }

  private static func withMAC1(_ message: [UInt8], for receiver: Key) -> [UInt8] {
    var message = message
    let count = message.count
    withUnsafeTemporaryAllocation(byteCount: WireGuard.keyByteCount, alignment: 8) { key in
      Cookie.deriveMAC1Key(into: key.baseAddress!, publicKey: receiver)
      message.withUnsafeMutableBytes { bytes in
        let mac = bytes.baseAddress! + (count - Cookie.trailerByteCount)
        Cookie.computeMAC1(
          into: mac, message: bytes.baseAddress!, byteCount: count, key: key.baseAddress!)
      }
    }
    return message
  }

  private func moveWallClock(of host: SimulatedHost, _ generator: inout SeededGenerator) {
    let far = [10, 4000, 1_000_000, 31_536_000].pick(&generator)
    host.wallOffset = Int64(generator.below(2 * far) - far) * Int64(nanosecondsPerSecond)
    // 1970, as without a real-time clock.
    if generator.next() % 4 == 0 { host.wallOffset = -1_800_000_000_000_000_000 }
  }

  private func crash(_ host: SimulatedHost, _ generator: inout SeededGenerator) {
    guard host.isRunning else { return }
    host.stop(isOrderly: generator.next() % 4 == 0, at: now)
    if generator.happens(plan.chance(of: .stateLoss)) { host.disk.lose() }
    if host.disk.hasLost {
      host.disk.hasLost = false
      lostState.insert(host.number)
      keys.forgetTimestamps(from: host.publicKey)
    }
    if plan.faults.contains(.wallClock), generator.next() % 2 == 0 {
      moveWallClock(of: host, &generator)
    }
    let clock = generator.next() % (1 << 40)
    touch(host.number)
    after(generator.below(30), host.number, .start(clock: clock))
  }

  private func roam(_ host: SimulatedHost, _ generator: inout SeededGenerator) {
    network.close(host.endpoint)
    host.endpoint = network.makeEndpoint(of: host.number)
    for peer in host.settings.peers where generator.next() % 4 == 0 {
      guard let other = peer.host else { continue }
      hosts[other].setEndpoint(host.endpoint, of: host.publicKey, at: now)
      touch(other)
    }
  }

  private func renewPrivateKey(of host: SimulatedHost, _ generator: inout SeededGenerator) {
    host.setPrivateKey(makePrivateKey(), at: now)
    for (left, right) in links where left == host.number || right == host.number {
      let other = left == host.number ? right : left
      after(generator.below(10), other, .introduce(host.number))
    }
  }

  /// Changes the settings of one of the host's peers.
  private func configure(
    _ fault: Fault, _ host: SimulatedHost, _ generator: inout SeededGenerator
  ) {
    guard !host.settings.peers.isEmpty else { return }
    let peer = host.settings.peers.pick(&generator)
    switch fault {
    case .peers: changePeers(of: host, peer, &generator)
    case .presharedKeys:
      guard let other = peer.host else { return }
      presharedKeys[[min(host.number, other), max(host.number, other)]] =
        generator.next() % 4 == 0 ? nil : generator.bytes(WireGuard.keyByteCount)
      after(0, host.number, .setPresharedKey(other))
      after(generator.below(10), other, .setPresharedKey(host.number))
    case .endpoints:
      let right = peer.host.map { hosts[$0].endpoint } ?? FaultyNetwork.attacker
      let endpoint = generator.next() % 3 == 0 ? hosts.pick(&generator).endpoint : right
      host.setEndpoint(endpoint, of: peer.key, at: now)
    case .keepalives:
      host.setKeepalive([0, 0, 1, 5, 25].pick(&generator), of: peer.key, at: now)
    default:
      // The prefixes of any host, perhaps those of another peer.
      let other = host.settings.peers.pick(&generator).host ?? generator.below(plan.hostCount)
      host.route(other, to: generator.next() % 4 == 0 ? nil : peer.key)
    }
  }

  private func changePeers(
    of host: SimulatedHost, _ peer: HostSettings.PeerSettings,
    _ generator: inout SeededGenerator
  ) {
    let strangers = host.settings.peers.count { $0.host == nil }
    if strangers < 2, generator.next() % 2 == 0 {
      let key = KeyBook.publicKey(of: generator.bytes(WireGuard.keyByteCount))
      let stranger = HostSettings.PeerSettings(
        host: nil, key: key, endpoint: FaultyNetwork.attacker,
        keepalive: [0, 5].pick(&generator))
      // Packets for a host that does not exist lead to it.
      host.add(stranger, routing: plan.hostCount + strangers, at: now)
      return
    }
    host.remove(peer.key)
    if let other = peer.host { after(generator.below(20), host.number, .introduce(other)) }
  }
}
