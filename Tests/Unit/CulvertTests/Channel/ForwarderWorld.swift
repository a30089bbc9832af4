import Testing

@testable import Culvert

/// A forwarder at one end of a tunnel, and at the other end a channel in the role of the servers.
final class ForwarderWorld {
  struct Datagram: Equatable {
    var bytes: [UInt8]
    var client: Path
    var mapping = 0
    var trafficClass: UInt8 = 0
  }

  /// A datagram that has reached the servers; its answer has the same bytes.
  struct Question {
    var bytes: [UInt8]
    var asker: Endpoint
    var trafficClass: UInt8
  }

  static let port: UInt16 = 53

  let pair: TunnelPair
  private let memory = TestArena(byteCount: 16 << 20)
  var forwarder: Forwarder
  var channel: DatagramChannel
  var clients: ForwarderBatch
  var answers: ForwarderBatch
  private var servers: DatagramChannel
  /// How many batches were filled outward, and how many tables of answers inward.
  var roundsOut = 0
  var roundsIn = 0

  /// - Parameter limits: of the tunnels.
  /// - Parameter places: of the forwarder's own batches.
  init(limits: Limits = .roomy, places: Int = 128) throws {
    pair = try TunnelPair(limits: limits)
    var own = limits
    own.flows = 64
    own.batchPackets = places
    forwarder = Forwarder(carvingFrom: &memory.arena, limits: own)
    channel = DatagramChannel(carvingFrom: &memory.arena, limits: own)
    clients = ForwarderBatch(carvingFrom: &memory.arena, limits: own, receives: true)
    answers = ForwarderBatch(carvingFrom: &memory.arena, limits: own, receives: false)
    servers = DatagramChannel(carvingFrom: &memory.arena, limits: own)
    forwarder.start(seed: 1)
    channel.start(seed: 2)
    servers.start(seed: 3)
    channel.open(firstPort: Forwarder.firstPort, count: Forwarder.portCount)
    servers.open(firstPort: ForwarderWorld.port)
    for address in [TunnelPair.addressOfA, TunnelPair.address6OfA] { channel.setAddress(address) }
    for address in [TunnelPair.addressOfB, TunnelPair.address6OfB] { servers.setAddress(address) }
    // Mapping 0 over IPv4, 1 over IPv6.
    for address in [TunnelPair.addressOfB, TunnelPair.address6OfB] {
      let target = Endpoint(address: address, port: ForwarderWorld.port)
      expect(forwarder.addMapping(to: target))
    }
    pair.connect()
    pair.forget()
  }

  // MARK: Outward

  /// Receives from clients until the batch is full. Returns how many found room.
  func receive(_ datagrams: [Datagram]) -> Int {
    clients.reset()
    for (index, datagram) in datagrams.enumerated() {
      guard let room = clients.room() else { return index }
      room.copyBytes(from: datagram.bytes)
      clients.append(
        byteCount: datagram.bytes.count, from: datagram.client, on: datagram.mapping,
        trafficClass: datagram.trafficClass)
    }
    return datagrams.count
  }

  /// Carries the received datagrams to the servers.
  func sendOut() -> [Question] {
    var questions: [Question] = []
    var next = 0
    while next < clients.count {
      pair.a.outbound.reset()
      next = forwarder.forward(
        from: clients, at: next, &channel, into: &pair.a.outbound, at: pair.now)
      roundsOut += 1
      for packet in pair.carryToB(pair.a.sendBatch(at: pair.now)) { serve(packet, &questions) }
    }
    return questions
  }

  private func serve(_ packet: [UInt8], _ questions: inout [Question]) {
    var packet = packet
    packet.withUnsafeMutableBytes {
      if case .datagram(let bytes, let asker, _, let trafficClass) = servers.receive(
        $0, from: 1, at: pair.now)
      {
        questions.append(
          Question(bytes: [UInt8](bytes), asker: asker, trafficClass: trafficClass))
      }
    }
    servers.release()
  }

  // MARK: Inward

  /// Sends every question back as its answer. Returns the datagrams that reach the clients.
  func sendBack(_ questions: [Question]) -> [Datagram] {
    var emissions: [Emission] = []
    for question in questions {
      pair.b.outbound.reset()
      // Room for headers before it, and for the cipher on both sides.
      let padding = [UInt8](repeating: 0, count: 1024)
      var buffer = padding + question.bytes + padding
      let count = question.bytes.count
      emissions += buffer.withUnsafeMutableBytes { buffer in
        let payload = UnsafeMutableRawBufferPointer(rebasing: buffer[1024..<1024 + count])
        _ = servers.send(
          payload, from: ForwarderWorld.port, to: question.asker,
          trafficClass: question.trafficClass, into: &pair.b.outbound, at: pair.now)
        return pair.b.sendBatch(at: pair.now)
      }
    }
    return deliver(emissions)
  }

  /// As many at once as a batch holds.
  private func deliver(_ emissions: [Emission]) -> [Datagram] {
    var found: [Datagram] = []
    var rest = emissions[...]
    let node = pair.a
    while !rest.isEmpty {
      node.inbound.reset()
      while let emission = rest.first, let room = node.inbound.room {
        room.copyBytes(from: emission.bytes)
        node.inbound.append(
          byteCount: emission.bytes.count, from: Path(to: pair.b.endpoint),
          trafficClass: emission.trafficClass, isTruncated: false)
        rest.removeFirst()
      }
      node.tunnel.accept(&node.inbound, at: pair.now)
      node.inbound.open()
      node.tunnel.deliver(&node.inbound, at: pair.now)
      found += handOn(node)
    }
    return found
  }

  private func handOn(_ node: TunnelNode) -> [Datagram] {
    var found: [Datagram] = []
    var next = 0
    while next < node.inbound.count {
      answers.reset()
      next = forwarder.collectAnswers(
        from: node.inbound, at: next, &channel, into: &answers, at: pair.now)
      roundsIn += 1
      for index in 0..<answers.count {
        let answer = answers[index]
        found.append(
          Datagram(
            bytes: [UInt8](answer.bytes), client: answer.client, mapping: Int(answer.mapping),
            trafficClass: answer.trafficClass))
      }
      channel.release()
    }
    return found
  }

  static func client(_ port: UInt16) -> Path {
    Path(
      endpoint: Endpoint(address: ipv4(127, 0, 0, 1), port: port), source: ipv4(127, 0, 0, 53),
      interface: 1)
  }
}
