import CLinux
import Culvert

/// From the network to the TUN.
///
/// The functions are called in this order: `receive` by the one worker that leads, `accept` with
/// the tunnel locked, `open`, then in ticket order `deliver` with the tunnel locked, and `write`.
///
/// Where tunnels are nested, the first three are the outermost's; `write` takes what that has
/// delivered through the others, each with a batch of its own, and locks the tunnels itself for
/// that.
struct InboundLane: ~Copyable {
  /// One for each hop, the innermost first.
  private let batches: UnsafeMutablePointer<InboundBatch>
  private let hopCount: Int
  /// For recvmmsg.
  private let messages: UDPSocket.Messages
  /// For joined packets.
  private let slices: UnsafeMutablePointer<clinux_slice>
  /// Bytes for each datagram of a recvmmsg call. Without UDP_GRO there is no room for many of the
  /// largest size; a larger one than this is lost once, and then there is room for it.
  private var datagramByteCount = InboundLane.usualByteCount
  private var callsWithoutLarge = 0

  private static let usualByteCount = 2048
  private static let callsToForgetLarge = 4096
  /// Errors of single datagrams (ICMP answers to what was sent) that one call looks past: receiving
  /// goes on (R37), but not for ever in one call.
  private static let errorsPerCall = 64

  /// Carves the lane; `setBatch` completes it.
  init(carvingFrom arena: inout Arena, hops: Int) {
    hopCount = hops
    batches = arena.carveBytes(
      hops * MemoryLayout<InboundBatch>.stride, owner: "workers: state"
    ).baseAddress!.assumingMemoryBound(to: InboundBatch.self)
    messages = UDPSocket.Messages(carvingFrom: &arena)
    // All-zero bytes are a valid value of the C type.
    slices = arena.carveBytes(
      BatchLayout.maximumSegments * MemoryLayout<clinux_slice>.stride, owner: "pieces to write"
    ).baseAddress!.assumingMemoryBound(to: clinux_slice.self)
  }

  /// The batch for one hop. Not on a measuring arena.
  func setBatch(_ batch: consuming InboundBatch, of hop: Int) {
    (batches + hop).initialize(to: batch)
  }

  /// Whether packets will be joined for this TUN.
  func prepare(for tun: borrowing TunDevice) {
    batches.pointee.preparesJoining = !tun.joining.isEmpty
  }

  /// What datagrams are received into: the outermost hop's.
  private var outermost: UnsafeMutablePointer<InboundBatch> { batches + (hopCount - 1) }

  // MARK: Steps

  /// Receives what has come, as much as fits.
  mutating func receive(
    _ sockets: borrowing UDPSockets, _ family: IPAddress.Family
  ) -> LaneResult {
    outermost.pointee.reset()
    if sockets.receiving.contains(.gro) {
      return receiveOneByOne(sockets, family, datagrams: BatchLayout.maximumSegments)
    }
    if sockets.receiving.contains(.mmsg) { return receiveMany(sockets, family) }
    return receiveOneByOne(sockets, family, datagrams: 1)
  }

  var isEmpty: Bool { outermost.pointee.count == 0 }

  /// Bytes that were received: how much work the rest of the way is.
  var byteCount: Int { outermost.pointee.byteCount }

  func accept(_ tunnel: inout Tunnel, at now: Instant) {
    tunnel.accept(&outermost.pointee, at: now)
  }

  func open() { outermost.pointee.open() }

  func deliver(_ tunnel: inout Tunnel, at now: Instant) {
    tunnel.deliver(&outermost.pointee, at: now)
  }

  /// Hands on what was delivered, in the end to the TUN, and forgets the keys.
  func write(_ hops: Hops, _ lock: Lock, _ result: inout LaneResult, at now: Instant) {
    handOn(hopCount - 1, hops, lock, &result, at: now)
  }

  private func handOn(
    _ hop: Int, _ hops: Hops, _ lock: Lock, _ result: inout LaneResult, at now: Instant
  ) {
    if hop > 0 {
      carryInward(hop, hops, lock, &result, at: now)
    } else if let forwarding = hops.forwarding {
      forwarding.deliver(batches.pointee, lock, at: now)
    } else {
      writePackets(hops.innermost, &result)
    }
    (batches + hop).pointee.reset()
  }

  /// Packets of one tunnel are datagrams of the one inside it.
  private func carryInward(
    _ hop: Int, _ hops: Hops, _ lock: Lock, _ result: inout LaneResult, at now: Instant
  ) {
    let outer = batches + hop
    let inner = batches + (hop - 1)
    let channel = hops.channels + (hop - 1)
    let inside = hops[hop - 1]
    var next = 0
    while next < outer.pointee.count {
      inner.pointee.reset()
      lock.acquire()
      next = channel.pointee.unwrap(from: outer.pointee, at: next, into: &inner.pointee, at: now)
      inside.pointee.tunnel.accept(&inner.pointee, at: now)
      lock.release()
      inner.pointee.open()
      lock.acquire()
      inside.pointee.tunnel.deliver(&inner.pointee, at: now)
      // Opened, they stand in the batch's own memory.
      channel.pointee.release()
      lock.release()
      handOn(hop - 1, hops, lock, &result, at: now)
    }
  }

  // MARK: Receiving

  private func receiveOneByOne(
    _ sockets: borrowing UDPSockets, _ family: IPAddress.Family, datagrams: Int
  ) -> LaneResult {
    var result = LaneResult(isDrained: false)
    var errors = 0
    while let room = outermost.pointee.room(for: BatchLayout.maximumDatagram, datagrams: datagrams)
    {
      let received = sockets.receive(into: room, family)
      guard received.byteCount >= 0 else {
        if received.byteCount == -Int(SystemError.EAGAIN.code) || errors == Self.errorsPerCall {
          result.isDrained = true
          break
        }
        errors += 1
        result.error = SystemError(code: Int32(truncatingIfNeeded: -received.byteCount))
        continue
      }
      outermost.pointee.append(
        byteCount: received.byteCount, from: received.path, trafficClass: received.trafficClass,
        isTruncated: received.isTruncated, segmentByteCount: received.segmentByteCount)
    }
    return result
  }

  private mutating func receiveMany(
    _ sockets: borrowing UDPSockets, _ family: IPAddress.Family
  ) -> LaneResult {
    var result = LaneResult(isDrained: false)
    var errors = 0
    let stride = BatchLayout.stride(for: datagramByteCount)
    var count = UDPSocket.Messages.capacity
    while count > 1, outermost.pointee.room(for: count * stride, datagrams: count) == nil {
      count -= 1
    }
    while let room = outermost.pointee.room(for: count * stride, datagrams: count) {
      let received = sockets.receive(
        messages, into: room.baseAddress!, stride: stride, capacity: datagramByteCount,
        count: count, family)
      if received < 0 {
        let error = SystemError(code: Int32(truncatingIfNeeded: -received))
        if error == .ENOSYS {
          result.lost.insert(.mmsg)
          break
        }
        if error == .EAGAIN || errors == Self.errorsPerCall {
          result.isDrained = true
          break
        }
        errors += 1
        result.error = error
        continue
      }
      take(received, stride: stride)
      if received < count {
        result.isDrained = true
        break
      }
    }
    return result
  }

  private mutating func take(_ count: Int, stride: Int) {
    // From the last to the first they could not be appended: each moves the batch's end. The
    // offsets are from the room that was given, whose start is the batch's end before this call.
    var taken = 0
    let start = outermost.pointee.byteCount
    var isTruncated = false
    var isLarge = false
    while taken < count {
      let message = messages[taken]
      outermost.pointee.append(
        byteCount: message.byteCount, at: start + taken * stride - outermost.pointee.byteCount,
        from: message.path, trafficClass: message.trafficClass, isTruncated: message.isTruncated)
      isTruncated = isTruncated || message.isTruncated
      isLarge = isLarge || message.byteCount > Self.usualByteCount
      taken += 1
    }
    if isTruncated {
      datagramByteCount = min(datagramByteCount * 4, BatchLayout.maximumDatagram)
      callsWithoutLarge = 0
      return
    }
    // Anybody can send a large datagram; room for many is not given up for it for good.
    callsWithoutLarge = isLarge ? 0 : callsWithoutLarge + 1
    if callsWithoutLarge > Self.callsToForgetLarge { datagramByteCount = Self.usualByteCount }
  }

  // MARK: Writing

  private func writePackets(
    _ interface: UnsafeMutablePointer<Interface>, _ result: inout LaneResult
  ) {
    let joining = interface.pointee.tun.joining
    batches.pointee.join(tcp: joining.contains(.tso), udp: joining.contains(.uso))
    for group in 0..<batches.pointee.outputCount {
      // What the kernel has just refused joined is not tried again.
      if batches.pointee.packetCount(of: group) > 1, result.lost.isEmpty {
        writeJoined(group, interface, &result)
      } else {
        writeApart(group, interface, &result)
      }
    }
  }

  /// Each packet by itself.
  private func writeApart(
    _ group: Int, _ interface: UnsafeMutablePointer<Interface>, _ result: inout LaneResult
  ) {
    batches.pointee.forEachPacket(of: group) { bytes, byteCount in
      let written = interface.pointee.tun.write(
        UnsafeMutableRawBufferPointer(start: bytes, count: byteCount))
      if written < 0 { result.didFailToWrite(1, -written) }
    }
  }

  /// Several packets as one. Where the kernel refuses, they are lost, and the next go alone.
  private func writeJoined(
    _ group: Int, _ interface: UnsafeMutablePointer<Interface>, _ result: inout LaneResult
  ) {
    let headerByteCount = interface.pointee.tun.headerByteCount
    let slices = slices
    var count = 0
    batches.pointee.forEachPiece(of: group) { bytes, byteCount in
      slices[count] = clinux_slice(bytes: bytes, byte_count: byteCount)
      count += 1
    }
    let header = slices[0].bytes! - headerByteCount
    header.initializeMemory(as: UInt8.self, repeating: 0, count: headerByteCount)
    let isTCP = batches.pointee.finish(group, virtioHeader: header) != .udp
    slices[0].bytes = header
    slices[0].byte_count += headerByteCount
    let written = interface.pointee.tun.write(pieces: slices, count: count)
    guard written < 0 else { return }
    result.didFailToWrite(count, -written)
    if result.error == .EINVAL { result.lost.insert(isTCP ? .tso : .uso) }
  }
}
