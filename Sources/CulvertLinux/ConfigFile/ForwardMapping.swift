import Culvert

/// The value of `--udp`: the local endpoint for clients, and the destination inside the tunnel.
///
///     LISTEN:PORT=DESTINATION:PORT
///
/// Both are addresses, with IPv6 in brackets. Host names are not accepted, because they could not
/// be resolved inside the tunnel before it is up. An empty LISTEN (`:53=10.0.0.1:53`) means
/// 127.0.0.1. To serve other machines, `0.0.0.0` or `[::]` must be given explicitly.
package struct ForwardMapping: Equatable, Sendable, BitwiseCopyable {
  let local: Endpoint
  let target: Endpoint

  package init(local: Endpoint, target: Endpoint) {
    self.local = local
    self.target = target
  }

  /// Why a value is invalid.
  package enum Mistake: Error, Sendable, BitwiseCopyable {
    case noSeparator
    case badLocal
    case badTarget
    case localPortZero
    case targetPortZero
    case targetUnspecified
    case targetMulticast
    case targetZone
    case unknownZone

    /// The end of a sentence that begins with the value.
    package var text: StaticString {
      switch self {
      case .noSeparator:
        "has no '='; write LISTEN:PORT=DESTINATION:PORT, for example 127.0.0.1:53=10.0.0.1:53"
      case .badLocal:
        "must begin with a unicast ADDRESS:PORT such as 127.0.0.1:53 or [::1]:53, not a host name"
      case .badTarget:
        "must end with ADDRESS:PORT such as 10.0.0.1:53 or [fd00::1]:53, not a host name"
      case .localPortZero: "listens on port 0; choose a port from 1 to 65535"
      case .targetPortZero: "has port 0 as its destination; give the server's port, 1 to 65535"
      case .targetUnspecified: "has an unspecified destination; give the server's address"
      case .targetMulticast: "has a multicast destination; give the address of one server"
      case .targetZone: "has a zone (%) in its destination; remove it, the tunnel has no zones"
      case .unknownZone: "names an interface that does not exist; ip link lists them"
      }
    }
  }

  /// Parses a value. The name of a zone is looked up in this network namespace.
  package static func parse(_ text: UnsafeRawBufferPointer) throws(Mistake) -> ForwardMapping {
    guard let separator = firstSeparator(text) else { throw .noSeparator }
    let local = try parseLocal(UnsafeRawBufferPointer(rebasing: text[..<separator]))
    let target = try parseTarget(UnsafeRawBufferPointer(rebasing: text[(separator + 1)...]))
    return ForwardMapping(local: local, target: target)
  }

  private static func firstSeparator(_ text: UnsafeRawBufferPointer) -> Int? {
    for index in 0..<text.count where text[index] == UInt8(ascii: "=") { return index }
    return nil
  }

  private static func parseLocal(_ text: UnsafeRawBufferPointer) throws(Mistake) -> Endpoint {
    var endpoint: Endpoint
    if text.count > 0, text[0] == UInt8(ascii: ":") {
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

  /// Parses `:53`, by prepending the address.
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

/// Why a mapping cannot be served, as one line for the user.
struct ForwardFailure: Error {
  enum Reason {
    /// The local socket cannot be opened.
    case listening(SystemError)
    /// The configuration file has no Address of the destination's family.
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
      line.append("cannot forward to ")
      line.append(mapping.target)
      line.append(": [Interface] has no ")
      line.append(mapping.target.address.family == .ipv4 ? "IPv4" : "IPv6")
      line.append(" Address to send from; add one to the configuration file")
    case .noRoute:
      line.append("cannot forward to ")
      line.append(mapping.target)
      line.append(": it is not in the AllowedIPs of any [Peer]; add it to one")
    }
  }

  private static func advice(_ error: SystemError) -> StaticString? {
    switch error {
    case .EACCES:
      "; ports below 1024 need root or CAP_NET_BIND_SERVICE, so choose a higher one"
    case .EADDRINUSE: "; another program or --udp already listens there, choose another port"
    case .EADDRNOTAVAIL: "; no interface of this machine has this address, see ip address"
    default: nil
    }
  }
}
