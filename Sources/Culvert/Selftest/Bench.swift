/// `culvert bench`: the throughput of this device, measured with the tunnel's own code but without
/// system calls. Each function runs for about `duration` nanoseconds of the clock `now`.
package enum Bench {
  /// A monotonic clock in nanoseconds. A C function, because the compiler would specialise each
  /// function for a closure.
  package typealias Clock = @convention(c) () -> UInt64

  /// How much was done, and how long it took.
  package struct Measurement: BitwiseCopyable, Sendable {
    package fileprivate(set) var count: UInt64 = 0
    package fileprivate(set) var nanoseconds: UInt64 = 0

    /// Units per second, if each count is `unit` units; 0 if nothing was measured.
    package func perSecond(_ unit: UInt64 = 1) -> UInt64 {
      // In microseconds, because the bytes of a few minutes times 10^9 would overflow 64 bits.
      let microseconds = nanoseconds / 1000
      return microseconds == 0 ? 0 : count &* unit &* 1_000_000 / microseconds
    }
  }

  /// Packets through both lanes.
  package struct Packets: BitwiseCopyable, Sendable {
    /// The cipher alone.
    package fileprivate(set) var seal = Measurement()
    package fileprivate(set) var open = Measurement()
    /// The whole lane: plan, seal, emit; accept, open, deliver.
    package fileprivate(set) var outbound = Measurement()
    package fileprivate(set) var inbound = Measurement()
  }

  /// The most memory that a measurement needs, in bytes.
  package static let memoryByteCount = 1 << 20
  /// Bytes of a packet: the interface's default MTU.
  package static let packetByteCount = Policy.defaultMTU
  /// Packets in a batch: about one TCP burst.
  private static let batchPacketCount = 40

  /// - Parameter memory: `memoryByteCount` bytes, page-aligned, which are overwritten, here and
  ///   below.
  package static func packets(
    memory: UnsafeMutableRawBufferPointer, duration: UInt64, now: Clock
  ) -> Packets {
    var loopback = makeLoopback(memory)
    let cipher = TransportCipher.measured(scratch: loopback.outbound.scratch) { now() }
    let (one, two) = (Loopback.initiator, Loopback.responder)
    loopback.setCipher(cipher, of: one)
    loopback.setCipher(cipher, of: two)
    loopback.initiate()
    loopback.accept(two)
    loopback.runTimers(two)
    loopback.confirm()
    var packets = Packets()
    let count = UInt64(batchPacketCount)
    let before = loopback.count(.delivered, of: two)
    let start = now()
    while now() &- start < duration {
      loopback.fill(batchPacketCount, byteCount: packetByteCount)
      let begun = now()
      loopback.plan(one)
      let planned = now()
      _ = loopback.seal()
      let sealed = now()
      loopback.inbound.reset()
      loopback.copyOutputs()
      let moved = now()
      _ = loopback.seal()
      loopback.emit(one)
      let emitted = now()
      loopback.accept(two)
      let accepted = now()
      loopback.open()
      let opened = now()
      loopback.deliver(two)
      let delivered = now()
      packets.seal.add(count, sealed &- planned)
      packets.outbound.add(count, sealed &- begun &+ (emitted &- moved))
      packets.open.add(count, opened &- accepted)
      packets.inbound.add(count, delivered &- emitted)
    }
    // Lost packets would make the results too good.
    let arrived = loopback.count(.delivered, of: two) &- before
    return arrived == packets.inbound.count ? packets : Packets()
  }

  /// Diffie-Hellman multiplications.
  package static func x25519(
    memory: UnsafeMutableRawBufferPointer, duration: UInt64, now: Clock
  ) -> Measurement {
    let secret = memory.baseAddress!
    memory.initializeMemory(as: UInt8.self, repeating: 9)
    var measurement = Measurement()
    let start = now()
    while measurement.nanoseconds < duration {
      _ = X25519.multiply(into: secret + 32, secret: secret, point: secret + 32)
      measurement.count &+= 1
      measurement.nanoseconds = now() &- start
    }
    return measurement
  }

  /// Answered handshakes: the time from an initiation to its response.
  package static func handshakes(
    memory: UnsafeMutableRawBufferPointer, duration: UInt64, now: Clock
  ) -> Measurement {
    var loopback = makeLoopback(memory)
    var measurement = Measurement()
    let start = now()
    while now() &- start < duration {
      loopback.initiate()
      let begun = now()
      loopback.accept(Loopback.responder)
      loopback.runTimers(Loopback.responder)
      measurement.add(1, now() &- begun)
      loopback.confirm()
    }
    let accepted = loopback.count(.handshakeAccepted, of: Loopback.responder)
    return accepted == measurement.count ? measurement : Measurement()
  }

  /// IPv4 datagrams reassembled from `count` fragments of 1500 bytes each.
  package static func reassembly(
    fragments count: Int, isReversed: Bool, memory: UnsafeMutableRawBufferPointer,
    duration: UInt64, now: Clock
  ) -> Measurement {
    memory.initializeMemory(as: UInt8.self, repeating: 0)
    var arena = Arena(region: memory)
    let byteCount = 20 + 1480 * count
    var reassembler = Reassembler(carvingFrom: &arena, maximumPacketByteCount: longestByteCount)
    reassembler.start(seed: 1)
    let packet = arena.carveBytes(byteCount, owner: "bench").baseAddress!
    let stride = 1536
    let fragments = arena.carveBytes(stride * count, owner: "bench").baseAddress!
    writeIPv4Header(at: packet, byteCount: byteCount)
    guard let fragmenter = cut(packet, byteCount: byteCount, mtu: 1500, identification: 1)
    else { return Measurement() }
    for index in 0..<count {
      let place = isReversed ? count - 1 - index : index
      write(index, of: fragmenter, to: fragments + place * stride)
    }
    let time = Instant(nanoseconds: 1)
    var measurement = Measurement()
    let start = now()
    while measurement.nanoseconds < duration {
      for index in 0..<(64 * count) {
        let fragment = UnsafeMutableRawBufferPointer(
          start: fragments + index % count * stride, count: 1500)
        if case .complete(_, let slot) = reassembler.add(fragment, from: 1, at: time) {
          reassembler.release(slot)
          measurement.count &+= 1
        }
      }
      measurement.nanoseconds = now() &- start
    }
    return measurement
  }

  /// Bytes of a datagram in seven fragments.
  private static let longestByteCount = 10_380

  private static func makeLoopback(_ memory: UnsafeMutableRawBufferPointer) -> Loopback {
    memory.initializeMemory(as: UInt8.self, repeating: 0)
    var arena = Arena(region: memory)
    let loopback = Loopback(
      carvingFrom: &arena, at: Instant(nanoseconds: 1_800_000_000_000_000_000))
    loopback.start(isSeeded: true)
    return loopback
  }
}

extension Bench.Measurement {
  fileprivate mutating func add(_ count: UInt64, _ nanoseconds: UInt64) {
    self.count &+= count
    self.nanoseconds &+= nanoseconds
  }
}
