/// A tunnel inside a tunnel: datagrams that the inner tunnel has sealed become packets of the outer
/// tunnel, and packets that the outer tunnel has delivered become datagrams of the inner tunnel.
/// The channel replaces the inner tunnel's socket.
///
/// Nothing is copied: each tunnel's cipher reads the output of the other tunnel in place. Therefore
/// both batches are in use at the same time, and the loops are nested:
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
///       use the packets that inner has delivered
///       channel.release()
///     }
///
/// Before the first use of the inner outbound batch, call its
/// `leaveRoom(forHeaders: DatagramChannel.headroom)`.
extension DatagramChannel {
  /// Turns the datagrams of `inner` from `index` on into packets, and appends them to `outer`,
  /// which must be empty, as long as there is room. Marks datagrams that cannot be sent as failed
  /// in `inner`.
  ///
  /// - Returns: the index at which to continue.
  public mutating func wrap(
    from inner: inout OutboundBatch, at index: Int, into outer: inout OutboundBatch,
    at now: Instant
  ) -> Int {
    var index = index
    while index < inner.outputCount {
      if case .datagram(let bytes, let path, let trafficClass) = inner.output(index) {
        // The batch owns this memory, and does not use it until the next `seal` or `reset`.
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

  /// Extracts the datagrams from the packets that `outer` has delivered, from `index` on, and
  /// appends them to `inner`, which must be empty, as long as there is room. It also stops when
  /// half of the reassembler's slots hold datagrams for `inner`; `release` frees them.
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
