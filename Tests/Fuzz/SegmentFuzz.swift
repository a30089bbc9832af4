// Packets from a TUN with virtio headers, cut into segments. The input is the 10-byte virtio header
// and the packet. Build and run: Tests/Fuzz/run virtio.
//
// Every buffer is an allocation of exactly the bytes that its user may touch, so that the address
// sanitizer sees any access outside.

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
  // Correct the fields whose right values the fuzzer would hardly find by chance.
  if let model = PacketModel(packet) { VirtioFuzz.cutCompleted(model, offload) }
  return 0
}

enum VirtioFuzz {
  /// Checks that a header keeps its meaning when it is written back and read again.
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

  /// Any packet with any offload: no access outside the buffers, and the segments' payloads add up
  /// to the packet's payload.
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

  /// With the offload's offsets and the checksum field corrected: the segments are exactly the
  /// model's.
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

// MARK: Joining

// Packets for a TUN, joined and segmented again. The input is a sequence of packets, each preceded
// by two bytes: how it is made, and how many bytes it takes. Build and run: Tests/Fuzz/run join.
//
// `JoinWorld` (Tests/Unit/CulvertTests/Segments) checks that every packet comes out unchanged and
// in order; `JoinModel` decides which ones belong together.

nonisolated(unsafe) private let world = JoinWorld()

func fuzzJoining(_ bytes: UnsafePointer<UInt8>?, _ count: Int) -> CInt {
  var input = UnsafeRawBufferPointer(start: bytes, count: count)[...]
  var packets: [[UInt8]] = []
  let taken = input.popFirst() ?? 0
  while packets.count < 80, let choice = input.popFirst(), let length = input.popFirst() {
    let part = Array(input.prefix(Int(length)))
    input = input.dropFirst(Int(length))
    packets.append(JoinFuzz.packet(choice, part, after: packets))
  }
  let (allowTCP, allowUDP) = (taken & 1 == 0, taken & 2 == 0)
  world.run(packets, allowTCP: allowTCP, allowUDP: allowUDP)
  if let failure = world.failure { fatalError("\(failure)") }
  var model = JoinModel(allowTCP: allowTCP, allowUDP: allowUDP)
  for packet in packets { model.add(packet) }
  if world.groups.map(\.packets) != model.groups { fatalError("not grouped as by the model") }
  return 0
}

enum JoinFuzz {
  /// A packet from bytes of the input, or a slightly changed earlier one: by chance alone no packet
  /// would ever continue another.
  static func packet(_ choice: UInt8, _ part: [UInt8], after packets: [[UInt8]]) -> [UInt8] {
    guard choice & 7 != 0, !packets.isEmpty else { return choice & 8 == 0 ? part : righted(part) }
    var packet = packets[packets.count - 1 - Int(choice >> 5) % packets.count]
    guard choice & 7 != 1 else { return packet }
    proceed(&packet)
    if choice & 7 == 2 { return packet }
    // Changed bytes at an offset: choice 3 leaves the checksums wrong.
    if let place = part.first, !packet.isEmpty {
      for (index, byte) in part.dropFirst().enumerated() {
        packet[(Int(place) + index) % packet.count] ^= byte
      }
    }
    if choice & 7 == 3 { return packet }
    if choice & 7 == 4 { packet += part }
    return righted(packet)
  }

  /// Corrects lengths and checksums.
  private static func righted(_ bytes: [UInt8]) -> [UInt8] {
    guard bytes.count >= 20 else { return bytes }
    var packet = bytes
    if packet[0] >> 4 == 4 {
      packet[2] = UInt8(packet.count >> 8)
      packet[3] = UInt8(packet.count & 0xff)
    } else if packet.count >= 40 {
      packet[0] = 0x60 | packet[0] & 0xf
      packet[4] = UInt8((packet.count - 40) >> 8)
      packet[5] = UInt8((packet.count - 40) & 0xff)
    }
    guard var model = PacketModel(packet) else { return packet }
    if let transport = model.transport, transport.number == 17, transport.offset + 8 <= packet.count
    {
      model.set(packet.count - transport.offset, at: transport.offset + 4)
    }
    guard let field = model.checksumOffset, field + 2 <= packet.count else { return packet }
    model.updateChecksums()
    return model.bytes
  }

  /// The packet that would come next in a flow.
  private static func proceed(_ bytes: inout [UInt8]) {
    guard var model = PacketModel(bytes), let field = model.checksumOffset,
      field + 4 <= bytes.count, let start = model.transport?.offset,
      model.headerByteCount <= bytes.count
    else { return }
    if model.isIPv4 { model.set(Int(model.word(4)) + 1, at: 4) }
    if model.isTCP {
      let sequence =
        Int(model.word(start + 4)) << 16 + Int(model.word(start + 6)) + model.payload.count
      model.set(sequence >> 16, at: start + 4)
      model.set(sequence, at: start + 6)
    }
    model.updateChecksums()
    bytes = model.bytes
  }
}
