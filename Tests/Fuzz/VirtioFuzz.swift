// Packets from a TUN with their virtio headers, cut into segments. The input is the header, 10
// bytes, and the packet. Build and run: Tests/Fuzz/run virtio.
//
// Every buffer is an allocation of exactly the bytes that its user may touch, so that address
// sanitizer sees the first one outside.

func fuzzVirtio(_ bytes: UnsafePointer<UInt8>?, _ count: Int) -> CInt {
  let headerByteCount = PacketOffload.virtioHeaderByteCount
  guard let bytes, count >= headerByteCount else { return 0 }
  let header = UnsafeMutableRawPointer.allocate(byteCount: headerByteCount, alignment: 1)
  defer { header.deallocate() }
  header.copyMemory(from: bytes, byteCount: headerByteCount)
  let packet = Array(
    UnsafeRawBufferPointer(start: bytes + headerByteCount, count: count - headerByteCount))
  guard let offload = PacketOffload(virtioHeader: header) else { return 0 }
  VirtioFuzz.writeAgain(offload, as: header)
  VirtioFuzz.cut(packet, offload)
  // What is refused for a field that nothing will ever look at need not be found by chance.
  if let model = PacketModel(packet) { VirtioFuzz.cutCompleted(model, offload) }
  return 0
}

enum VirtioFuzz {
  /// A header that is read and written says the same again.
  static func writeAgain(_ offload: PacketOffload, as header: UnsafeMutableRawPointer) {
    let length = VirtioHeader.headerByteCountOffset
    offload.write(
      to: header, headerByteCount: Int(header.load(fromByteOffset: length, as: UInt16.self)))
    guard let again = PacketOffload(virtioHeader: header) else {
      fatalError("a header that was written cannot be read")
    }
    require(again.segmentation == offload.segmentation)
    require(again.needsChecksum == offload.needsChecksum)
    require(again.checksumStart == offload.checksumStart)
    require(again.checksumOffset == offload.checksumOffset)
    require(again.segmentByteCount == offload.segmentByteCount)
  }

  /// Any packet, any offload: no byte outside, and the sum of the segments' payloads is the
  /// packet's.
  static func cut(_ packet: [UInt8], _ offload: PacketOffload) {
    guard let segments = segments(packet, offload) else { return }
    if offload.segmentation == .none {
      require(segments.count == 1 && segments[0].count == packet.count, "a packet was cut")
      require(offload.needsChecksum || segments == [packet], "a whole packet has changed")
      return
    }
    guard let model = PacketModel(packet) else { fatalError("no packet, and yet it was cut") }
    require(model.transport?.offset == offload.checksumStart, "not where the transport header is")
    let size = offload.segmentByteCount
    require(segments.count == max(1, (model.payload.count + size - 1) / size))
    var payload: [UInt8] = []
    for segment in segments {
      guard let segment = PacketModel(segment) else { fatalError("a segment is no packet") }
      payload += segment.payload
    }
    require(payload == model.payload, "payload was lost")
  }

  /// With everything put right that is neither the kernel's nor the fuzzer's to find: its segments
  /// are exactly the model's.
  static func cutCompleted(_ packet: PacketModel, _ offload: PacketOffload) {
    var packet = packet
    guard let transport = packet.transport, let field = packet.checksumOffset,
      field + 2 <= packet.bytes.count
    else { return }
    packet.leaveChecksum()
    var offload = offload
    offload.checksumStart = transport.offset
    offload.checksumOffset = field - transport.offset
    guard let segments = segments(packet.bytes, offload) else { return }
    guard offload.segmentation != .none else {
      if offload.needsChecksum {
        packet.updateTransportChecksum()
        require(segments == [packet.bytes], "a checksum was not finished as the model does")
      }
      return
    }
    require(segments == packet.segments(of: offload.segmentByteCount), "not as the model cuts it")
    for segment in segments {
      require(PacketModel(segment)?.hasRightChecksums == true, "a checksum is wrong")
    }
  }

  private static func segments(_ packet: [UInt8], _ offload: PacketOffload) -> [[UInt8]]? {
    let bytes = UnsafeMutableRawBufferPointer.allocate(byteCount: packet.count, alignment: 1)
    let headers = UnsafeMutableRawPointer.allocate(
      byteCount: Segmenter.headersByteCount, alignment: 1)
    defer {
      bytes.deallocate()
      headers.deallocate()
    }
    bytes.copyBytes(from: packet)
    guard let start = bytes.baseAddress,
      var segmenter = Segmenter(
        at: start, byteCount: packet.count, offload: offload, headers: headers)
    else { return nil }
    return (0..<segmenter.segmentCount).map { index in
      let start = segmenter.cut(index)
      return Array(UnsafeRawBufferPointer(start: start, count: segmenter.byteCount(index)))
    }
  }
}

/// `precondition` whose message is printed in release builds too.
private func require(_ isTrue: Bool, _ promise: StaticString = "", line: UInt = #line) {
  if !isTrue { fatalError("line \(line): \(promise)") }
}
