import CLinux
import Culvert

/// Sends the sealed datagrams of a batch through the sockets, with as few system calls as the
/// kernel allows.
struct DatagramSender: ~Copyable {
  /// For sendmmsg.
  private let slices: UnsafeMutablePointer<clinux_slice>

  init(carvingFrom arena: inout Arena) {
    // All-zero bytes are a valid value of the C type.
    slices = arena.carveBytes(
      UDPSocket.Messages.capacity * MemoryLayout<clinux_slice>.stride, owner: "sent messages"
    ).baseAddress!.assumingMemoryBound(to: clinux_slice.self)
  }

  /// Sends the datagram at `index`, together with as many of the next ones as one call can send.
  /// Returns the number of outputs that were handled.
  func send(
    _ batch: inout OutboundBatch, _ index: Int, _ sockets: borrowing UDPSockets,
    _ result: inout LaneResult
  ) -> Int {
    guard case .datagram(let bytes, let path, let trafficClass) = batch.output(index) else {
      return 1
    }
    let ways = sockets.sending.subtracting(result.lost)
    if ways.contains(.gso) {
      let count = batch.runLength(from: index, isUniform: true)
      if count > 1 {
        return sendSegments(&batch, index, count, bytes, path, trafficClass, sockets, &result)
      }
    }
    if ways.contains(.mmsg) {
      let count = batch.runLength(from: index, isUniform: false)
      if count > 1 { return sendMany(&batch, index, count, path, trafficClass, sockets, &result) }
    }
    sendOne(&batch, index, sockets, &result)
    return 1
  }

  @discardableResult
  private func sendOne(
    _ batch: inout OutboundBatch, _ index: Int, _ sockets: borrowing UDPSockets,
    _ result: inout LaneResult
  ) -> UDPSocket.Sent {
    guard case .datagram(let bytes, let path, let trafficClass) = batch.output(index) else {
      return UDPSocket.Sent(result: 0, isSourceGone: false)
    }
    let sent = sockets.send(bytes, to: path, trafficClass: trafficClass)
    if sent.isSourceGone { batch.didLoseSource(index) }
    if sent.result < 0 {
      batch.didFail(index)
      result.error = SystemError(code: -sent.result)
    }
    return sent
  }

  /// Sends datagrams that are contiguous in memory, in one call.
  private func sendSegments(
    _ batch: inout OutboundBatch, _ index: Int, _ count: Int, _ first: UnsafeRawBufferPointer,
    _ path: Path, _ trafficClass: UInt8, _ sockets: borrowing UDPSockets,
    _ result: inout LaneResult
  ) -> Int {
    guard case .datagram(let last, _, _) = batch.output(index + count - 1) else { return 1 }
    let byteCount = last.baseAddress! + last.count - first.baseAddress!
    let error = -sockets.sendSegments(
      UnsafeRawBufferPointer(start: first.baseAddress!, count: byteCount),
      segmentByteCount: first.count, to: path, trafficClass: trafficClass)
    switch SystemError(code: error) {
    case SystemError(code: 0): return count
    case .EAGAIN, .ENOBUFS, .EPERM:
      // Each datagram would also fail alone. They are dropped and counted.
      for datagram in index..<index + count { batch.didFail(datagram) }
      result.error = SystemError(code: error)
      return count
    case .EIO, .ENOPROTOOPT, .EOPNOTSUPP:
      // The device cannot compute checksums, or the kernel cannot segment. GSO is not used again.
      result.lost.insert(.gso)
      for datagram in index..<index + count { sendOne(&batch, datagram, sockets, &result) }
    default:
      let failures = resend(&batch, index, count, sockets, &result)
      // The single datagrams were accepted with the same source address, so the kernel had refused
      // the segment size.
      if failures == 0 { batch.didRefuseSegments(index) }
    }
    return count
  }

  /// Sends datagrams one by one that were refused together. Returns how many of them fail or lose
  /// their source address. If the network cannot be reached, the rest is not tried.
  private func resend(
    _ batch: inout OutboundBatch, _ index: Int, _ count: Int, _ sockets: borrowing UDPSockets,
    _ result: inout LaneResult
  ) -> Int {
    var failures = 0
    for datagram in index..<index + count {
      let sent = sendOne(&batch, datagram, sockets, &result)
      if sent.isSourceGone || sent.result < 0 { failures += 1 }
      let error = SystemError(code: -sent.result)
      if sent.result < 0, error != .EINVAL, error != .EMSGSIZE {
        for rest in datagram + 1..<index + count { batch.didFail(rest) }
        break
      }
    }
    return failures
  }

  /// Sends datagrams of any size on one path in one call. If the kernel stops at one of them, the
  /// caller continues with that one (R20).
  private func sendMany(
    _ batch: inout OutboundBatch, _ index: Int, _ run: Int, _ path: Path, _ trafficClass: UInt8,
    _ sockets: borrowing UDPSockets, _ result: inout LaneResult
  ) -> Int {
    let count = min(run, UDPSocket.Messages.capacity)
    for place in 0..<count {
      guard case .datagram(let bytes, _, _) = batch.output(index + place) else { return 1 }
      slices[place] = clinux_slice(
        bytes: UnsafeMutableRawPointer(mutating: bytes.baseAddress!), byte_count: bytes.count)
    }
    let sent = sockets.sendMany(slices, count: count, to: path, trafficClass: trafficClass)
    if sent > 0 { return Int(sent) }
    if SystemError(code: -sent) == .ENOSYS { result.lost.insert(.mmsg) }
    // The first datagram was refused, or only its source address.
    sendOne(&batch, index, sockets, &result)
    return 1
  }
}
