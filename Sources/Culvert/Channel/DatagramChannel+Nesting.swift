/// A tunnel inside a tunnel: datagrams that the inner tunnel has sealed become packets of the outer
/// one, and packets that the outer tunnel has delivered become datagrams of the inner one. The
/// channel replaces the inner tunnel's socket.
///
/// Nothing is copied: each tunnel's cipher reads the other one's output in place. So the batches
/// are used in this order, one inside the other:
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
///       use what inner has delivered
///       channel.release()
///     }
///
/// Before its first use, the inner outbound batch is told to leave room for the headers:
/// `leaveRoom(forHeaders: DatagramChannel.headroom)`.
extension DatagramChannel {
  /// Makes packets of the datagrams of `inner` from `index` on, and appends them to `outer`, which
  /// is empty, as long as there is room. Datagrams that cannot be sent are recorded in `inner`.
  ///
  /// - Returns: the index at which to continue.
  public mutating func wrap(
    from inner: inout OutboundBatch, at index: Int, into outer: inout OutboundBatch,
    at now: Instant
  ) -> Int {
    var index = index
    while index < inner.outputCount {
      if case .datagram(let bytes, let path, let trafficClass) = inner.output(index) {
        // The memory belongs to the batch, which leaves it alone until it is reset.
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

  /// Takes the datagrams out of the packets that `outer` has delivered, from `index` on, and
  /// appends them to `inner`, which is empty, as long as there is room. It also stops when the
  /// reassembler has lent half of its memory, until `release`.
  ///
  /// - Returns: the index at which to continue.
  public mutating func unwrap(
    from outer: borrowing InboundBatch, at index: Int, into inner: inout InboundBatch,
    at now: Instant
  ) -> Int {
    // Otherwise the caller's loop would never end.
    precondition(inner.hasRoomForAny, "the inner batch is not empty, or too small for a datagram")
    precondition(lentCount < Reassembler.slots / 2, "release() has not been called")
    var index = index
    while index < outer.count, inner.hasRoomForAny, lentCount < Reassembler.slots / 2 {
      if let packet = outer.delivered(index),
        case .datagram(let payload, let endpoint, _, let trafficClass) = receive(
          packet, from: outer.sender(index), at: now),
        let start = payload.baseAddress
      {
        // There is room for a datagram of any size, so this cannot fail.
        _ = inner.append(
          at: start, byteCount: payload.count,
          from: Path(to: endpoint), trafficClass: trafficClass)
      }
      index &+= 1
    }
    return index
  }
}
