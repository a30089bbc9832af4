import Foundation
import Testing

@testable import Culvert

private let families: [IPAddress.Family] = [.ipv4, .ipv6]
private let strides = [0, 64, 256, 512]

/// Nothing is copied between nested tunnels, so each cipher works in the other's memory. The room
/// that it needs around a packet must be there, and it must change nothing outside its own areas.
@Suite struct NestingMemoryTests {
  /// Memory that a step may change.
  private struct Area {
    var start: UnsafeRawPointer
    var byteCount: Int

    init(_ start: UnsafeRawPointer, _ byteCount: Int) {
      self.start = start
      self.byteCount = byteCount
    }

    init(_ bytes: UnsafeMutableRawBufferPointer) { self.init(bytes.baseAddress!, bytes.count) }

    init<T>(_ table: UnsafeMutableBufferPointer<T>) {
      self.init(UnsafeMutableRawBufferPointer(table))
    }

    func contains(_ address: UnsafeRawPointer) -> Bool {
      address >= start && address < start + byteCount
    }
  }

  /// All of a process's memory, as it was before a step.
  private final class Snapshot {
    private let memory: UnsafeRawBufferPointer
    private let before: UnsafeMutableRawBufferPointer
    /// The tunnels and batches themselves, whose fields change at each step.
    private let values: Area

    init(_ node: TunnelNode) {
      // The secrets come first.
      let arena = node.memory
      memory = UnsafeRawBufferPointer(
        start: arena.arena.secrets.baseAddress, count: arena.arena.byteCount)
      values = Area(node.values.baseAddress!, node.values.count)
      before = .allocate(byteCount: memory.count, alignment: 64)
      take()
    }

    deinit { before.deallocate() }

    func take() { before.copyMemory(from: memory) }

    /// Checks that only these areas have changed since the last snapshot, and takes the next one.
    func expectChanges(
      only areas: [Area], _ comment: Comment, sourceLocation: SourceLocation = #_sourceLocation
    ) {
      let step = 4096
      var strays: [Int] = []
      for offset in stride(from: 0, to: memory.count, by: step) {
        let count = min(step, memory.count - offset)
        let (now, old) = (memory.baseAddress! + offset, before.baseAddress! + offset)
        guard memcmp(now, old, count) != 0 else { continue }
        for index in 0..<count where now.byte(index) != UnsafeRawPointer(old).byte(index) {
          let address = now + index
          if !values.contains(address), !areas.contains(where: { $0.contains(address) }) {
            strays.append(offset + index)
          }
        }
      }
      #expect(strays.isEmpty, comment, sourceLocation: sourceLocation)
      take()
    }
  }

  private func bytes(_ count: Int, seed: UInt64) -> [UInt8] {
    var random = SeededGenerator(seed: seed)
    return random.bytes(count)
  }

  /// Fills all unused memory of the batches with `byte`, to find code that relies on zeros.
  private func fill(_ node: TunnelNode, _ byte: UInt8) {
    for hop in node.hops {
      hop.outbound.reset()
      hop.inbound.reset()
      for area in [
        hop.outbound.bytes, hop.outbound.outputs.bytes, hop.inbound.bytes, hop.inbound.texts,
      ] { area.initializeMemory(as: UInt8.self, repeating: byte) }
    }
  }

  // MARK: Step by step

  /// Sends through two hops, and checks what each step changes.
  private func sendStepByStep(_ node: TunnelNode, _ packets: [[UInt8]], at now: Instant)
    -> [Emission]
  {
    let (inner, outer) = (node.hops[0], node.hops[1])
    inner.outbound.reset()
    for packet in packets {
      inner.outbound.room(for: packet.count)!.copyBytes(from: packet)
      inner.outbound.append(byteCount: packet.count)
    }
    inner.tunnel.plan(&inner.outbound, at: now)
    let snapshot = Snapshot(node)
    var emissions: [Emission] = []
    while inner.outbound.seal() {
      // The tables of outputs and sessions, and the outputs.
      snapshot.expectChanges(
        only: [
          Area(inner.outbound.outputs.bytes), Area(inner.outbound.outputs.datagrams),
          sessions(of: inner.outbound),
        ], "sealing the inner packets")
      var next = 0
      while next < inner.outbound.outputCount {
        outer.outbound.reset()
        snapshot.take()
        let first = next
        next = inner.channel.wrap(
          from: &inner.outbound, at: next, into: &outer.outbound, at: now)
        snapshot.expectChanges(
          only: headrooms(of: inner.outbound, first..<next) + [
            Area(outer.outbound.bytes), Area(outer.outbound.packets), channelState(inner),
          ], "carrying outward")
        outer.tunnel.plan(&outer.outbound, at: now)
        checkSealable(outer.outbound, of: node, cipher: outer.tunnel.cipher)
        snapshot.take()
        while outer.outbound.seal() {
          // The input is unchanged, including the inner tunnel's outputs.
          snapshot.expectChanges(
            only: [
              Area(outer.outbound.outputs.bytes), Area(outer.outbound.outputs.datagrams),
              sessions(of: outer.outbound),
            ], "sealing the outer packets")
          for index in 0..<outer.outbound.outputCount {
            guard
              case .datagram(let bytes, let path, let trafficClass) = outer.outbound.output(index)
            else { continue }
            emissions.append(
              Emission(bytes: [UInt8](bytes), path: path, trafficClass: trafficClass))
          }
        }
        outer.tunnel.emit(&outer.outbound, at: now)
      }
      snapshot.take()
    }
    inner.tunnel.emit(&inner.outbound, at: now)
    return emissions
  }

  /// The headroom of each output.
  private func headrooms(of batch: borrowing OutboundBatch, _ range: Range<Int>) -> [Area] {
    range.map {
      Area(
        batch.outputs[$0].start - DatagramChannel.headroom, DatagramChannel.headroom)
    }
  }

  private func sessions(of batch: borrowing OutboundBatch) -> Area {
    Area(batch.sessions.table, batch.packets.count * MemoryLayout<BatchSession>.stride)
  }

  /// The channel's counters. The path table and the list of lent slots follow them, and must not
  /// change.
  private func channelState(_ hop: TunnelHop) -> Area {
    withUnsafeBytes(of: hop.channel.counters) {
      Area($0.load(as: UnsafeRawPointer.self), Int(DatagramVerdict.count) * 8)
    }
  }

  /// Checks that the cipher reads only within the area that holds the packet.
  private func checkSealable(
    _ batch: borrowing OutboundBatch, of node: TunnelNode, cipher: TransportCipher
  ) {
    let areas = node.hops.flatMap { [Area($0.outbound.bytes), Area($0.outbound.outputs.bytes)] }
    for index in 0..<batch.count where batch.packets[index].kind == .text {
      let packet = batch.packets[index]
      let text = UnsafeRawPointer(packet.start)
      let padded = roundUp(Int(packet.byteCount), to: 16)
      let stream =
        cipher.stride == 0
        ? 64 + padded : ComposedAEAD.streamByteCount(for: padded, stride: cipher.stride)
      let area = areas.first { $0.contains(text) }
      guard let area else {
        Issue.record("a packet stands nowhere")
        continue
      }
      #expect(text - TransportCipher.headroom >= area.start)
      #expect(text + (stream - 64) <= area.start + area.byteCount)
      #expect(text + padded + TransportCipher.slack <= area.start + area.byteCount)
    }
  }

  /// The same for the inbound direction.
  private func receiveStepByStep(
    _ node: TunnelNode, _ emissions: [Emission], at now: Instant
  ) -> [[UInt8]] {
    let (inner, outer) = (node.hops[0], node.hops[1])
    var packets: [[UInt8]] = []
    var rest = emissions[...]
    let snapshot = Snapshot(node)
    while !rest.isEmpty {
      outer.inbound.reset()
      while let emission = rest.first, let room = outer.inbound.room {
        room.copyBytes(from: emission.bytes)
        outer.inbound.append(
          byteCount: emission.bytes.count, from: Path(to: TunnelPair.network(1)),
          trafficClass: 0, isTruncated: false)
        rest = rest.dropFirst()
      }
      outer.tunnel.accept(&outer.inbound, at: now)
      snapshot.take()
      outer.inbound.open()
      snapshot.expectChanges(
        only: [Area(outer.inbound.texts), Area(outer.inbound.packets)], "opening the outer ones")
      outer.tunnel.deliver(&outer.inbound, at: now)
      var next = 0
      while next < outer.inbound.count {
        inner.inbound.reset()
        next = inner.channel.unwrap(
          from: outer.inbound, at: next, into: &inner.inbound, at: now)
        inner.tunnel.accept(&inner.inbound, at: now)
        checkOpenable(inner.inbound, of: node, cipher: inner.tunnel.cipher)
        snapshot.take()
        inner.inbound.open()
        // The outer texts and the reassembler's slots are unchanged.
        snapshot.expectChanges(
          only: [Area(inner.inbound.texts), Area(inner.inbound.packets)], "opening the inner ones")
        inner.tunnel.deliver(&inner.inbound, at: now)
        for index in 0..<inner.inbound.count {
          if let packet = inner.inbound.delivered(index) { packets.append([UInt8](packet)) }
        }
        inner.channel.release()
      }
    }
    return packets
  }

  private func checkOpenable(
    _ batch: borrowing InboundBatch, of node: TunnelNode, cipher: TransportCipher
  ) {
    let areas =
      node.hops.map { Area($0.inbound.texts) } + node.hops.dropLast().flatMap { slots(of: $0) }
    for index in 0..<batch.count where batch.packets[index].kind == .sealed {
      let message = UnsafeRawPointer(batch.packets[index].start) + 16
      let byteCount = Int(batch.packets[index].byteCount) - 32
      let stream =
        cipher.stride == 0
        ? 64 + byteCount : ComposedAEAD.streamByteCount(for: byteCount, stride: cipher.stride)
      guard let area = areas.first(where: { $0.contains(message) }) else {
        Issue.record("a datagram stands nowhere")
        continue
      }
      #expect(message - TransportCipher.headroom >= area.start)
      let end = area.start + area.byteCount
      #expect(message + (stream - 64) <= end)
      // The tag, and the block of lengths that is written after it.
      #expect(message + byteCount + 32 <= end)
      #expect(message + byteCount + TransportCipher.slack <= end)
    }
  }

  private func slots(of hop: TunnelHop) -> [Area] {
    let start = { UnsafeRawPointer(hop.channel.reassembler.payload(of: $0)) }
    let byteCount = start(1) - start(0)
    return (0..<Reassembler.slots).map {
      Area(start($0) - Reassembler.payloadByteOffset, byteCount)
    }
  }

  @Test(arguments: families, strides) func everyStepKeepsToItsAreas(
    family: IPAddress.Family, stride: Int
  ) throws {
    var limits = Limits.roomy
    limits.reassembledByteCount = 5000
    for other in [stride, strides[(strides.firstIndex(of: stride)! + 1) % 4]] {
      let pair = try TunnelPair(
        hops: 2, families: [family], limits: limits, strides: [stride, other])
      pair.connect()
      pair.forget()
      fill(pair.a, 0xa5)
      fill(pair.b, 0x5a)
      // Whole, fragmented, and whole again; then a batch of the smallest packets.
      for sizes in [[0, 1300, 1330, 3, 4000, 700], [1313], [Int](repeating: 0, count: 16)] {
        let packets = sizes.map { TunnelPair.packet(bytes($0, seed: UInt64($0))) }
        let emissions = sendStepByStep(pair.a, packets, at: pair.now)
        #expect(receiveStepByStep(pair.b, emissions, at: pair.now) == packets)
      }
    }
  }

  /// If the outer tunnel cannot route a packet of the inner one, it sends no ICMP error: the error
  /// would overwrite the datagram before it.
  @Test(arguments: families) func noErrorsAroundWhatStandsElsewhere(
    family: IPAddress.Family
  ) throws {
    let pair = try TunnelPair(hops: 2, families: [family])
    pair.connect()
    pair.forget()
    let (inner, outer) = (pair.a.hops[0], pair.a.hops[1])
    let nowhere = family == .ipv4 ? ipv4(8, 8, 8, 8) : ipv6(0x2001_0db8 << 32, 8)
    inner.tunnel.setEndpoint(Endpoint(address: nowhere, port: 1), of: inner.firstPeer)
    inner.outbound.reset()
    for count in [200, 0, 300] {
      let packet = TunnelPair.packet(bytes(count, seed: 1))
      inner.outbound.room(for: packet.count)!.copyBytes(from: packet)
      inner.outbound.append(byteCount: packet.count)
    }
    inner.tunnel.plan(&inner.outbound, at: pair.now)
    #expect(inner.outbound.seal() && inner.outbound.outputCount == 3)
    outer.outbound.reset()
    let next = pair.a.hops[0].channel.wrap(
      from: &inner.outbound, at: 0, into: &outer.outbound, at: pair.now)
    #expect(next == 3)
    let before = [UInt8](inner.outbound.outputs.bytes)
    let messages = [UInt8](inner.outbound.bytes)
    outer.tunnel.plan(&outer.outbound, at: pair.now)
    #expect(outer.count(.noPeerForDestination) == 3)
    #expect([UInt8](inner.outbound.outputs.bytes) == before)
    #expect([UInt8](inner.outbound.bytes) == messages)
    expect(!outer.outbound.seal())
  }

  // MARK: By construction

  /// Output areas with and without room for headers, filled with packets of any size: nothing
  /// overlaps, the first has `lead` before its headers, the last has `slack` after it.
  @Test(arguments: 0..<40 as Range<UInt64>) func outputAreas(seed: UInt64) {
    var random = SeededGenerator(seed: seed)
    let memory = TestArena()
    var outputs = BatchOutputs(
      carvingFrom: &memory.arena, capacity: 400, owner: "test")
    for gap in [0, DatagramChannel.headroom, BatchLayout.headroom] {
      outputs.gap = gap
      outputs.reset()
      let start = outputs.bytes.baseAddress!
      var end = start + BatchLayout.lead
      let largest = [100, 1500, 9000, 65_535].randomElement(using: &random)!
      while true {
        let byteCount = Int.random(in: 32...largest, using: &random)
        guard let place = outputs.place(for: byteCount) else { break }
        #expect(place - gap >= end && place - gap - start >= TransportCipher.headroom)
        end = place + byteCount
        #expect(start + outputs.bytes.count - end >= TransportCipher.slack)
        outputs.appendSealed(byteCount: byteCount, session: 0, kind: .data, trafficClass: 0)
      }
      expect(outputs.count > 0)
      outputs.reset()
      // Any single datagram finds room.
      #expect(outputs.place(for: BatchLayout.maximumDatagram) != nil)
    }
  }

  /// Datagrams outside the batch need room for their texts, counted as if they were in the batch:
  /// after the last text there is room that the cipher may overwrite.
  @Test(arguments: 0..<12 as Range<UInt64>) func textAreas(seed: UInt64) throws {
    var random = SeededGenerator(seed: seed)
    for limits in [Limits.nested, .narrow, Profile.tiny.limits] {
      let memory = TestArena(byteCount: 4 << 20)
      let keys = memory.arena.carveBytes(limits.batchPackets * 32, owner: "test").baseAddress!
      var batch = InboundBatch(carvingFrom: &memory.arena, keys: keys, limits: limits)
      let datagram = memory.arena.carveBytes(70_000, owner: "test").baseAddress!
      for largest in [32, 40, 1500, 65_535] {
        batch.reset()
        expect(batch.hasRoomForAny)
        var used = 0
        while true {
          let byteCount = Int.random(in: 32...largest, using: &random)
          let had = batch.hasRoomForAny
          guard
            batch.append(
              at: datagram, byteCount: byteCount, from: Path(to: TunnelPair.network(1)),
              trafficClass: 0)
          else {
            #expect(!had)
            break
          }
          // As `open` places them.
          let offset = roundUp(used + BatchLayout.headroom, to: BatchLayout.alignment)
          used = offset + byteCount - WireGuard.overheadByteCount
          #expect(offset >= TransportCipher.headroom)
          expect(used + WireGuard.tagByteCount + TransportCipher.slack <= batch.texts.count)
        }
        expect(batch.count > 0)
      }
    }
  }

  /// Slots of the reassembler: for a packet of any size, in either family, with or without headers,
  /// the cipher has room before and after the payload.
  @Test(arguments: families, [2048, 5000, 65_575])
  func slotsOfTheReassembler(family: IPAddress.Family, largest: Int) throws {
    var limits = Limits.channel
    limits.reassembledByteCount = largest
    let near = ChannelEnd(host: 1, limits: limits)
    let far = ChannelEnd(host: 2, limits: limits)
    let most = min(largest - (family == .ipv4 ? 28 : 48), family == .ipv4 ? 65_507 : 65_527)
    let reassembler = near.channel.reassembler.payload(of: 0)
    let stride = near.channel.reassembler.payload(of: 1) - reassembler
    let first = UnsafeRawPointer(reassembler) - Reassembler.payloadByteOffset
    for (count, extra) in [(most, 0), (most - 40, 40), (most - 1, 0), (300, 0)] {
      var model = near.packet(bytes(count, seed: 1), from: far, family)
      if extra > 0, family == .ipv4 { model.ipv4Options = [UInt8](repeating: 1, count: extra) }
      if extra > 0, family == .ipv6 { model.extensions = [.options(extra)] }
      for fragment in model.fragments(min(1400, count / 2 & ~7)) {
        let buffer = PacketBuffer(fragment)
        let received = near.channel.receive(
          UnsafeMutableRawBufferPointer(start: buffer.start, count: buffer.byteCount), from: 1,
          at: near.now)
        guard case .datagram(let payload, _, _, _) = received else { continue }
        #expect([UInt8](payload) == model.payload)
        let start = UnsafeRawPointer(payload.baseAddress!)
        let slot = (start - first) / stride
        let region = first + slot * stride
        // Sealed again in place, with headers before it. Opening needs less.
        #expect(start - DatagramChannel.headroom - TransportCipher.headroom >= region)
        #expect(start + payload.count + 15 + TransportCipher.slack <= region + stride)
      }
      #expect(near.count(.received) > 0)
      near.channel.release()
    }
    #expect(near.count(.received) == 4)
  }
}
