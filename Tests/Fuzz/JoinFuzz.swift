// Packets on their way to a TUN, joined and cut again. The input is a sequence of packets, each
// behind two bytes: how it is made, and of how many bytes. Build and run: Tests/Fuzz/run join.
//
// `JoinWorld` (Tests/Unit/CulvertTests/Tunnel) checks that every packet comes out whole and in its
// place; `JoinModel` says which ones belong together.

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
  /// A packet from bytes of the input, or one before it that is changed a little; by chance alone
  /// nothing would ever continue anything.
  static func packet(_ choice: UInt8, _ part: [UInt8], after packets: [[UInt8]]) -> [UInt8] {
    guard choice & 7 != 0, !packets.isEmpty else { return choice & 8 == 0 ? part : righted(part) }
    var packet = packets[packets.count - 1 - Int(choice >> 5) % packets.count]
    guard choice & 7 != 1 else { return packet }
    proceed(&packet)
    if choice & 7 == 2 { return packet }
    // Other bytes at a place: 3 leaves the checksums wrong.
    if let place = part.first, !packet.isEmpty {
      for (index, byte) in part.dropFirst().enumerated() {
        packet[(Int(place) + index) % packet.count] ^= byte
      }
    }
    if choice & 7 == 3 { return packet }
    if choice & 7 == 4 { packet += part }
    return righted(packet)
  }

  /// Lengths and checksums as they should be.
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
