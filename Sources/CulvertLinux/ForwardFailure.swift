import Culvert

/// Why a mapping cannot be served, in one line for the user.
struct ForwardFailure: Error {
  enum Reason {
    /// The local socket cannot be had.
    case listening(SystemError)
    /// The configuration file gives no address of the destination's family.
    case noAddress
    /// No peer's allowed IPs cover the destination.
    case noRoute
  }

  let mapping: ForwardMapping
  let reason: Reason

  func append(to line: inout Line) {
    switch reason {
    case .listening(let error):
      line.append("cannot listen on ")
      line.append(mapping.local)
      line.append(": ")
      line.append(error)
      if let advice = ForwardFailure.advice(error) { line.append(advice) }
    case .noAddress:
      line.append("no way to ")
      line.append(mapping.target)
      line.append(": the [Interface] section has no ")
      line.append(mapping.target.address.family == .ipv4 ? "IPv4" : "IPv6")
      line.append(" Address to send from")
    case .noRoute:
      line.append("no way to ")
      line.append(mapping.target)
      line.append(": no [Peer] has AllowedIPs that cover it")
    }
  }

  private static func advice(_ error: SystemError) -> StaticString? {
    switch error {
    case .EACCES:
      "; below 1024 it takes CAP_NET_BIND_SERVICE, or sysctl net.ipv4.ip_unprivileged_port_start"
    case .EADDRINUSE: "; another program, or another --udp, listens there"
    case .EADDRNOTAVAIL: "; no interface has this address"
    default: nil
    }
  }
}
