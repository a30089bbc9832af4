/// Between clients' datagrams and the packets of the tunnel:
///
///     var next = 0                               // outward
///     while next < clients.count {
///       batch.reset()
///       next = forwarder.carry(from: clients, at: next, &channel, into: &batch, at: now)
///       tunnel.plan(&batch, at: now)
///       while batch.seal() { send the outputs of batch }
///       tunnel.emit(&batch, at: now)
///     }
///
///     tunnel.deliver(&batch, at: now)            // inward
///     var next = 0
///     while next < batch.count {
///       answers.reset()
///       next = forwarder.carry(from: batch, at: next, &channel, into: &answers, at: now)
///       send the answers
///       channel.release()
///     }
extension Forwarder {
  /// Puts clients' datagrams from `index` on into `batch`, which is empty, as far as there is room,
  /// and tells the index to go on at. They stay where they are until the batch has been emitted.
  public mutating func carry(
    from clients: borrowing ForwarderBatch, at index: Int, _ channel: inout DatagramChannel,
    into batch: inout OutboundBatch, at now: Instant
  ) -> Int {
    var index = index
    while index < clients.count {
      let datagram = clients[index]
      if let route = route(Int(datagram.mapping), from: datagram.client, at: now) {
        switch channel.send(
          datagram.bytes, from: route.port, to: route.target,
          trafficClass: datagram.trafficClass, into: &batch, at: now)
        {
        case .sent: count(.sent)
        case .batchFull: return index
        case .refused: count(.unsent)
        }
      }
      index &+= 1
    }
    return index
  }

  /// Puts the answers among the packets that `batch` has delivered, from `index` on, into
  /// `answers`, which is empty, as far as there is room, and tells the index to go on at. They stay
  /// where they are until `channel.release`.
  public mutating func carry(
    from batch: borrowing InboundBatch, at index: Int, _ channel: inout DatagramChannel,
    into answers: inout ForwarderBatch, at now: Instant
  ) -> Int {
    var index = index
    while index < batch.count, answers.hasPlace, channel.lentCount < Reassembler.slots / 2 {
      if let packet = batch.delivered(index) {
        carry(packet, from: batch.sender(index), &channel, into: &answers, at: now)
      }
      index &+= 1
    }
    return index
  }

  /// A packet that the tunnel has delivered.
  mutating func carry(
    _ packet: UnsafeMutableRawBufferPointer, from sender: UInt32, _ channel: inout DatagramChannel,
    into answers: inout ForwarderBatch, at now: Instant
  ) {
    switch channel.receive(packet, from: sender, at: now) {
    case .datagram(let bytes, let endpoint, let port, let trafficClass):
      guard let answer = answer(from: endpoint, to: port, at: now) else { return }
      answers.append(bytes, answer.client, answer.mapping, trafficClass)
    case .unreachable(let endpoint, let port): close(endpoint, from: port)
    case .nothing: break
    }
  }
}

extension Tunnel {
  /// Whether some peer's allowed IPs cover `address`.
  public func hasRoute(to address: IPAddress) -> Bool { allowedIPs.route(address) != nil }
}
