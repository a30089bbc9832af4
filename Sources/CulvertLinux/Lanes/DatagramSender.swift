import CLinux
import Culvert

/// Sends what a batch has sealed through the sockets, with as few calls as the kernel allows.
struct DatagramSender: ~Copyable {
  /// For sendmmsg.
  private let slices: UnsafeMutablePointer<clinux_slice>

  init(carvingFrom arena: inout Arena) {
    // All-zero bytes are a valid value of the C type.
    slices = arena.carveBytes(
      UDPSocket.Messages.capacity * MemoryLayout<clinux_slice>.stride, owner: "sent messages"
    ).baseAddress!.assumingMemoryBound(to: clinux_slice.self)
  }

  /// Sends as many datagrams as go in one call; how many that were.
  func send(
    _ batch: UnsafeMutablePointer<OutboundBatch>, _ index: Int,
    through interface: UnsafeMutablePointer<Interface>, _ result: inout LaneResult
  ) -> Int {
    guard case .datagram(let bytes, let path, let trafficClass) = batch.pointee.output(index) else {
      return 1
    }
    let ways = interface.pointee.sockets.sending.subtracting(result.lost)
    if ways.contains(.gso) {
      let count = batch.pointee.runLength(from: index, isUniform: true)
      if count > 1 {
        return sendSegments(batch, index, count, bytes, path, trafficClass, interface, &result)
      }
    }
    if ways.contains(.mmsg) {
      let count = batch.pointee.runLength(from: index, isUniform: false)
      if count > 1 { return sendMany(batch, index, count, path, trafficClass, interface, &result) }
    }
    sendOne(batch, index, interface, &result)
    return 1
  }

  @discardableResult
  private func sendOne(
    _ batch: UnsafeMutablePointer<OutboundBatch>, _ index: Int,
    _ interface: UnsafeMutablePointer<Interface>, _ result: inout LaneResult
  ) -> UDPSocket.Sent {
    guard case .datagram(let bytes, let path, let trafficClass) = batch.pointee.output(index) else {
      return UDPSocket.Sent(result: 0, isSourceGone: false)
    }
    let sent = interface.pointee.sockets.send(bytes, to: path, trafficClass: trafficClass)
    if sent.isSourceGone { batch.pointee.didLoseSource(index) }
    if sent.result < 0 {
      batch.pointee.didFail(index)
      result.error = SystemError(code: -sent.result)
    }
    return sent
  }

  /// Datagrams that stand back to back, in one call.
  private func sendSegments(
    _ batch: UnsafeMutablePointer<OutboundBatch>, _ index: Int, _ count: Int,
    _ first: UnsafeRawBufferPointer, _ path: Path,
    _ trafficClass: UInt8, _ interface: UnsafeMutablePointer<Interface>,
    _ result: inout LaneResult
  ) -> Int {
    guard case .datagram(let last, _, _) = batch.pointee.output(index + count - 1) else { return 1 }
    let byteCount = last.baseAddress! + last.count - first.baseAddress!
    let error = -interface.pointee.sockets.sendSegments(
      UnsafeRawBufferPointer(start: first.baseAddress!, count: byteCount),
      segmentByteCount: first.count, to: path, trafficClass: trafficClass)
    switch SystemError(code: error) {
    case SystemError(code: 0): return count
    case .EAGAIN, .ENOBUFS, .EPERM:
      // As it would be for each of them: they are lost, and counted.
      for datagram in index..<index + count { batch.pointee.didFail(datagram) }
      result.error = SystemError(code: error)
      return count
    case .EIO, .ENOPROTOOPT, .EOPNOTSUPP:
      // The device cannot compute checksums, or the kernel has no segments: off for good.
      result.lost.insert(.gso)
      for datagram in index..<index + count { sendOne(batch, datagram, interface, &result) }
    default:
      let failures = resend(batch, index, count, interface, &result)
      // One by one they went, and from the same address: it was the segments' size.
      if failures == 0 { batch.pointee.didRefuseSegments(index) }
    }
    return count
  }

  /// Sends one by one what was refused together; how many are refused again, or lost their source
  /// address. Where the network cannot be reached, the rest is not tried.
  private func resend(
    _ batch: UnsafeMutablePointer<OutboundBatch>, _ index: Int, _ count: Int,
    _ interface: UnsafeMutablePointer<Interface>,
    _ result: inout LaneResult
  ) -> Int {
    var failures = 0
    for datagram in index..<index + count {
      let sent = sendOne(batch, datagram, interface, &result)
      if sent.isSourceGone || sent.result < 0 { failures += 1 }
      let error = SystemError(code: -sent.result)
      if sent.result < 0, error != .EINVAL, error != .EMSGSIZE {
        for rest in datagram + 1..<index + count { batch.pointee.didFail(rest) }
        break
      }
    }
    return failures
  }

  /// Datagrams of any sizes on one path, in one call or, where it stops in between, in some more
  /// (R20).
  private func sendMany(
    _ batch: UnsafeMutablePointer<OutboundBatch>, _ index: Int, _ run: Int, _ path: Path,
    _ trafficClass: UInt8,
    _ interface: UnsafeMutablePointer<Interface>, _ result: inout LaneResult
  ) -> Int {
    let count = min(run, UDPSocket.Messages.capacity)
    for place in 0..<count {
      guard case .datagram(let bytes, _, _) = batch.pointee.output(index + place) else { return 1 }
      slices[place] = clinux_slice(
        bytes: UnsafeMutableRawPointer(mutating: bytes.baseAddress!), byte_count: bytes.count)
    }
    let sent = interface.pointee.sockets.sendMany(
      slices, count: count, to: path, trafficClass: trafficClass)
    if sent > 0 { return Int(sent) }
    if SystemError(code: -sent) == .ENOSYS {
      result.lost.insert(.mmsg)
    }
    // The first is the one that was refused, or only its source address was.
    sendOne(batch, index, interface, &result)
    return 1
  }
}
