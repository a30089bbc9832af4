import Culvert

/// The value of `--udp`: where clients are listened to, and the destination inside the tunnel.
///
///     LISTEN:PORT=DESTINATION:PORT
///
/// Both are addresses, IPv6 in brackets; no names, which nobody could resolve before the tunnel is
/// up. An empty LISTEN (`:53=10.0.0.1:53`) is 127.0.0.1: to be open to others has to be asked for,
/// with `0.0.0.0` or `[::]`.
public struct ForwardMapping: Equatable, Sendable, BitwiseCopyable {
  public let local: Endpoint
  public let target: Endpoint

  public init(local: Endpoint, target: Endpoint) {
    self.local = local
    self.target = target
  }

  /// What is wrong with a value.
  public enum Mistake: Error, Sendable, BitwiseCopyable {
    case noSeparator
    case badLocal
    case badTarget
    case localPortZero
    case targetPortZero
    case targetUnspecified
    case targetMulticast
    case targetZone
    case unknownZone

    /// The rest of a sentence that begins with the value.
    public var text: StaticString {
      switch self {
      case .noSeparator: "has no '=': LISTEN:PORT=DESTINATION:PORT, as 127.0.0.1:53=10.0.0.1:53"
      case .badLocal:
        "does not begin with ADDRESS:PORT, as 127.0.0.1:53 or [::1]:53 (names are not looked up)"
      case .badTarget:
        "does not end with ADDRESS:PORT, as 10.0.0.1:53 or [fd00::1]:53 (names are not looked up)"
      case .localPortZero: "listens on port 0, where no client would find it"
      case .targetPortZero: "goes to port 0, where nobody listens"
      case .targetUnspecified: "goes to the unspecified address: name the server"
      case .targetMulticast: "goes to a multicast group, whose answers have no one sender"
      case .targetZone: "has a zone in its destination; inside the tunnel there are none"
      case .unknownZone: "names an interface that there is not"
      }
    }
  }

  /// Reads a value. A zone by name is looked up, in this network namespace.
  public static func parse(_ text: UnsafeRawBufferPointer) throws(Mistake) -> ForwardMapping {
    guard let separator = firstSeparator(text) else { throw .noSeparator }
    let local = try parseLocal(UnsafeRawBufferPointer(rebasing: text[..<separator]))
    let target = try parseTarget(UnsafeRawBufferPointer(rebasing: text[(separator + 1)...]))
    return ForwardMapping(local: local, target: target)
  }

  private static func firstSeparator(_ text: UnsafeRawBufferPointer) -> Int? {
    for index in 0..<text.count where text[index] == 0x3d { return index }
    return nil
  }

  private static func parseLocal(_ text: UnsafeRawBufferPointer) throws(Mistake) -> Endpoint {
    var endpoint: Endpoint
    if text.count > 0, text[0] == 0x3a {
      endpoint = try parseShortLocal(text)
    } else {
      guard let parsed = AddressText.endpoint(text) else { throw .badLocal }
      endpoint = parsed.endpoint
      if parsed.zoneName.count > 0 {
        guard let index = InterfaceIndex.find(parsed.zoneName) else { throw .unknownZone }
        endpoint.scope = index
      }
    }
    guard !endpoint.address.isMulticast else { throw .badLocal }
    guard endpoint.port != 0 else { throw .localPortZero }
    return endpoint
  }

  /// `:53`, by putting the address in front of it.
  private static func parseShortLocal(
    _ text: UnsafeRawBufferPointer
  ) throws(Mistake) -> Endpoint {
    let host: StaticString = "127.0.0.1"
    guard text.count <= 6 else { throw .badLocal }
    let endpoint = withUnsafeTemporaryAllocation(byteCount: 16, alignment: 1) { buffer in
      var line = Line(into: buffer)
      line.append(host)
      line.append(text)
      return AddressText.endpoint(line.bytes)?.endpoint
    }
    guard let endpoint else { throw .badLocal }
    return endpoint
  }

  private static func parseTarget(_ text: UnsafeRawBufferPointer) throws(Mistake) -> Endpoint {
    guard let parsed = AddressText.endpoint(text) else { throw .badTarget }
    let endpoint = parsed.endpoint
    guard parsed.zoneName.count == 0, endpoint.scope == 0 else { throw .targetZone }
    guard !endpoint.address.isUnspecified else { throw .targetUnspecified }
    guard !endpoint.address.isMulticast else { throw .targetMulticast }
    guard endpoint.port != 0 else { throw .targetPortZero }
    return endpoint
  }
}

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
