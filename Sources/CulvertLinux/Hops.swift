import Culvert

/// The tunnels of one process: the innermost first, which has the TUN, and the outermost last,
/// which has the sockets. Mostly they are one and the same. Between a tunnel and the one around it
/// stands a channel, which is the inner one's socket.
struct Hops: BitwiseCopyable {
  /// More than anybody nests: each hop takes 60 or 80 bytes of every packet.
  static let maximum = 4

  let interfaces: UnsafeMutablePointer<Interface>
  /// One fewer: that at index i is between the interfaces i and i + 1.
  let channels: UnsafeMutablePointer<DatagramChannel>
  let count: Int
  /// What the innermost has in the place of a TUN, if anything.
  let forwarding: Forwarding?

  var innermost: UnsafeMutablePointer<Interface> { interfaces }
  var outermost: UnsafeMutablePointer<Interface> { interfaces + (count - 1) }
  var isNested: Bool { count > 1 }

  subscript(hop: Int) -> UnsafeMutablePointer<Interface> { interfaces + hop }

  /// When any of them has something to do.
  func nextDeadline(at now: Instant) -> Deadline {
    var next = interfaces.pointee.tunnel.nextDeadline(at: now)
    if let forwarding { next = min(next, forwarding.nextDeadline) }
    guard isNested else { return next }
    for hop in 1..<count { next = min(next, self[hop].pointee.tunnel.nextDeadline(at: now)) }
    for hop in 0..<count - 1 { next = min(next, (channels + hop).pointee.nextDeadline) }
    return next
  }

  /// A mark that is set on a hop without sockets is meant for those that its datagrams leave by:
  /// wg-quick(8) marks the innermost. The outermost's own comes first.
  func followMark(at now: Instant) {
    guard isNested else { return }
    var mark = outermost.pointee.firewallMark
    var hop = 0
    while mark == 0, hop < count - 1 {
      mark = self[hop].pointee.firewallMark
      hop += 1
    }
    let outermost = outermost
    guard mark != outermost.pointee.sockets.mark else { return }
    do throws(SystemError) { try outermost.pointee.sockets.setMark(mark) } catch {
      outermost.pointee.report(error, "cannot set the firewall mark", at: now)
    }
  }

  var hasEvents: Bool {
    for hop in 0..<count where self[hop].pointee.tunnel.hasEvents { return true }
    return false
  }

  /// A peer that is gone takes its fragments along (F10).
  func forgetRemovedSenders() {
    guard isNested else { return }
    for hop in 1..<count where self[hop].pointee.takeRemovals() {
      let interface = self[hop]
      (channels + (hop - 1)).pointee.reassembler.removeAll(fromSenders: {
        !interface.pointee.tunnel.hasSender($0)
      })
    }
  }
}
