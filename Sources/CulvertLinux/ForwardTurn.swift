import Culvert

/// From clients into the tunnel.
extension Worker {
  /// What clients have sent to a mapping's socket, one batch. So much in a turn and no more: what
  /// comes back in between makes room for other flows.
  ///
  /// The lead is kept: there is one buffer for what clients send.
  mutating func carryForward(
    _ mapping: Int, _ driver: UnsafeMutablePointer<Driver>, _ gates: Gates
  ) {
    let hops = driver.pointee.hops
    guard let forwarding = hops.forwarding else { return }
    let interface = hops.innermost
    var result = forwarding.receive(mapping)
    let ticket = driver.pointee.takeOutboundTicket()
    gates.outbound.enter(ticket)
    let now = Clock.boottime()
    var next = 0
    while next < forwarding.clientCount {
      gates.tunnel.acquire()
      next = outbound.take(forwarding, from: next, &interface.pointee.tunnel, at: now)
      gates.tunnel.release()
      while outbound.seal() { outbound.send(hops, gates.tunnel, &result, at: now) }
      gates.tunnel.acquire()
      outbound.emit(&interface.pointee.tunnel, at: now)
      gates.tunnel.release()
    }
    gates.tunnel.acquire()
    if !result.lost.isEmpty { hops.outermost.pointee.sockets.stopSending(result.lost) }
    interface.pointee.report(result, "forwarding failed", at: now)
    gates.tunnel.release()
    gates.outbound.leave()
  }
}
