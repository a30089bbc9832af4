/// A tunnel inside a tunnel: what the inner one has sealed becomes packets of the outer one, and
/// what the outer one has delivered becomes datagrams of the inner one. The channel stands in for
/// the inner tunnel's socket.
///
/// Nothing is copied: the outer tunnel's cipher reads the inner one's output where it stands, the
/// inner one's reads the outer one's. So the batches are used in this order, one inside the other:
///
///     while inner.seal() {                     // outward
///       var next = 0
///       while next < inner.outputCount {
///         outer.reset()
///         next = channel.wrap(from: &inner, at: next, into: &outer, at: now)
///         outerTunnel.plan(&outer, at: now)
///         while outer.seal() { send the outputs of outer }
///         outerTunnel.emit(&outer, at: now)
///       }
///     }
///     innerTunnel.emit(&inner, at: now)
///
///     outerTunnel.deliver(&outer, at: now)     // inward
///     var next = 0
///     while next < outer.count {
///       inner.reset()
///       next = channel.unwrap(from: outer, at: next, into: &inner, at: now)
///       innerTunnel.accept(&inner, at: now)
///       inner.open()
///       innerTunnel.deliver(&inner, at: now)
///       hand on what inner has delivered
///       channel.release()
///     }
///
/// A batch whose datagrams go into a channel is told once: `leaveRoom(forHeaders:
/// DatagramChannel.headroom)`.
extension DatagramChannel {
  /// Puts the datagrams of `inner` from `index` on into `outer`, which is empty, as far as there is
  /// room. Returns the index to go on at; those that cannot be sent are recorded in `inner`.
  public mutating func wrap(
    from inner: inout OutboundBatch, at index: Int, into outer: inout OutboundBatch,
    at now: Instant
  ) -> Int {
    var index = index
    while index < inner.outputCount {
      if case .datagram(let bytes, let path, let trafficClass) = inner.output(index) {
        // The batch's own memory: what is in it is the batch's until it is reset.
        let payload = UnsafeMutableRawBufferPointer(mutating: bytes)
        switch send(
          payload, from: firstPort, to: path.endpoint, trafficClass: trafficClass, into: &outer,
          at: now)
        {
        case .sent: break
        case .batchFull: return index
        case .refused: inner.didFail(index)
        }
      }
      index &+= 1
    }
    return index
  }

  /// Puts the datagrams that `outer` has delivered, from `index` on, into `inner`, which is empty,
  /// as far as there is room. Returns the index to go on at.
  ///
  /// With it ends when the reassembler has lent half of its memory: `release` comes first then.
  public mutating func unwrap(
    from outer: borrowing InboundBatch, at index: Int, into inner: inout InboundBatch,
    at now: Instant
  ) -> Int {
    // Without these the caller's loop would never end.
    precondition(inner.hasRoomForAny, "the inner batch is not empty, or too small for a datagram")
    precondition(lentCount < Reassembler.slots / 2, "release() has not been called")
    var index = index
    while index < outer.count, inner.hasRoomForAny, lentCount < Reassembler.slots / 2 {
      if let packet = outer.delivered(index),
        case .datagram(let payload, let endpoint, _, let trafficClass) = receive(
          packet, from: outer.sender(index), at: now),
        let start = payload.baseAddress
      {
        // There is room for any, so nothing is lost here.
        _ = inner.append(
          at: start, byteCount: payload.count,
          from: Path(to: endpoint), trafficClass: trafficClass)
      }
      index &+= 1
    }
    return index
  }
}
