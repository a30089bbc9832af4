import CLinux
import Culvert

/// Resolves host names at startup, and blocks until it has an answer. It replaces getaddrinfo(3),
/// which does not work in a static binary. It reads /etc/hosts, and then asks the name servers from
/// /etc/resolv.conf over UDP (RFC 1035 section 7, RFC 5452 section 9).
///
/// From resolv.conf it uses up to three `nameserver` lines, or 127.0.0.1 if there are none. It does
/// not use a search list (a name is complete as written) and does not fall back to TCP.
struct Resolver {
  /// NUL-terminated paths, never freed.
  private let hosts: UnsafePointer<CChar>
  private let configuration: UnsafePointer<CChar>
  private let port: UInt16
  /// How long to wait for a server's answer, in nanoseconds.
  private let timeout: UInt64
  /// The descriptor for the message that a lookup takes long.
  private let output: Int32
  /// When that message is due, and whether it has been written.
  private var announcement = Instant(nanoseconds: 0)
  private var isAnnounced = false
  private var entropy = Entropy.sodium

  static let maximumServers = 3
  /// How many times all servers are asked.
  private static let tries = 3

  /// Uses the system's files.
  init() {
    // String literals are NUL-terminated.
    let hosts: StaticString = "/etc/hosts"
    let configuration: StaticString = "/etc/resolv.conf"
    self.init(
      hosts: UnsafeRawPointer(hosts.utf8Start).assumingMemoryBound(to: CChar.self),
      configuration: UnsafeRawPointer(configuration.utf8Start).assumingMemoryBound(to: CChar.self))
  }

  /// Uses other files and another port, for tests.
  init(
    hosts: UnsafePointer<CChar>, configuration: UnsafePointer<CChar>, port: UInt16 = 53,
    timeoutMilliseconds: UInt64 = 2000, output: Int32 = Output.standardError
  ) {
    self.hosts = hosts
    self.configuration = configuration
    self.port = port
    self.output = output
    timeout = timeoutMilliseconds * nanosecondsPerMillisecond
  }

  enum Answer: Equatable {
    case endpoint(Endpoint)
    case failure(ResolverFailure)
  }

  /// Resolves a name once, without retries. It asks for IPv6 addresses first if there is an IPv6
  /// route, otherwise for IPv4 addresses first, and then for those of the other family.
  ///
  /// - Parameters:
  ///   - name: as returned by `ConfigHostName.name`, or an address as text.
  ///   - port: the port of the resulting endpoint.
  mutating func find(_ name: UnsafeRawBufferPointer, port: UInt16) -> Answer {
    if let address = AddressText.address(name) {
      return .endpoint(Endpoint(address: address.unmapped, port: port))
    }
    guard let name = ConfigHostName.name(name) else { return .failure(.noSuchName) }
    announcement = Clock.boottime().advanced(by: nanosecondsPerSecond)
    isAnnounced = false
    if let endpoint = findInHosts(name, port: port) { return .endpoint(endpoint) }
    // The capacity is a literal, here and below, because otherwise the heap could be used.
    return withUnsafeTemporaryAllocation(of: Endpoint.self, capacity: 3) { servers in
      findAtServers(name, port: port, readServers(into: servers))
    }
  }

  // MARK: Files

  /// Looks up the name in the hosts file. In each family the first address with a route is
  /// preferred, and IPv6 is preferred to IPv4.
  private func findInHosts(_ name: UnsafeRawBufferPointer, port: UInt16) -> Endpoint? {
    var ipv4 = ResolverChoice()
    var ipv6 = ResolverChoice()
    ResolverLines.read(hosts) { words in
      guard let first = words.next(), let zoned = AddressText.zonedAddress(first) else { return }
      while let word = words.next() {
        guard let alias = ConfigHostName.name(word), ResolverLines.isEqual(alias, name) else {
          continue
        }
        var endpoint = Endpoint(address: zoned.address, port: port, scope: zoned.scope)
        if zoned.zoneName.count > 0 {
          guard let scope = InterfaceIndex.find(zoned.zoneName) else { return }
          endpoint.scope = scope
        }
        if endpoint.address.unmapped.family == .ipv4 {
          ipv4.offer(endpoint)
        } else {
          ipv6.offer(endpoint)
        }
        return
      }
    }
    if ipv6.isSettled || ipv4.endpoint == nil { return ipv6.endpoint }
    return ipv4.isSettled ? ipv4.endpoint : ipv6.endpoint ?? ipv4.endpoint
  }

  /// The name servers of resolv.conf, at least one.
  private func readServers(
    into servers: UnsafeMutableBufferPointer<Endpoint>
  ) -> UnsafeBufferPointer<Endpoint> {
    var count = 0
    ResolverLines.read(configuration) { words in
      guard count < min(Resolver.maximumServers, servers.count), let key = words.next(),
        Resolver.isNameserver(key), let word = words.next(),
        let zoned = AddressText.zonedAddress(word)
      else { return }
      let scope =
        zoned.zoneName.count > 0 ? InterfaceIndex.find(zoned.zoneName) ?? 0 : zoned.scope
      servers[count] = Endpoint(address: zoned.address.unmapped, port: self.port, scope: scope)
      count += 1
    }
    if count == 0 {
      servers[0] = Endpoint(address: IPAddress(ipv4: 0x7f00_0001), port: port)
      count = 1
    }
    return UnsafeBufferPointer(rebasing: servers[..<count])
  }

  private static func isNameserver(_ word: UnsafeRawBufferPointer) -> Bool {
    let key: StaticString = "nameserver"
    return ResolverLines.isEqual(
      word, UnsafeRawBufferPointer(start: key.utf8Start, count: key.utf8CodeUnitCount))
  }

  // MARK: Name servers

  private mutating func findAtServers(
    _ name: UnsafeRawBufferPointer, port: UInt16, _ servers: UnsafeBufferPointer<Endpoint>
  ) -> Answer {
    var choice = ResolverChoice()
    // Any global address will do, because only the existence of a route matters.
    let probe = IPAddress(ipv6High: 0x2001_0db8_0000_0000, low: 1)
    let hasIPv6 = ResolverChoice.hasRoute(to: Endpoint(address: probe, port: port))
    let first = ask(name, hasIPv6 ? .ipv6 : .ipv4, port: port, servers, &choice)
    if choice.isSettled, let endpoint = choice.endpoint { return .endpoint(endpoint) }
    let second = ask(name, hasIPv6 ? .ipv4 : .ipv6, port: port, servers, &choice)
    if let endpoint = choice.endpoint { return .endpoint(endpoint) }
    return .failure(first.combined(with: second))
  }

  /// Asks for the addresses of one family and offers them to `choice`. The returned failure is only
  /// meaningful if none was usable.
  private mutating func ask(
    _ name: UnsafeRawBufferPointer, _ family: IPAddress.Family, port: UInt16,
    _ servers: UnsafeBufferPointer<Endpoint>, _ choice: inout ResolverChoice
  ) -> ResolverFailure {
    var failure = ResolverFailure.noAnswer
    for _ in 0..<Resolver.tries {
      for server in servers {
        let query = NameQuery(
          name: name, family: family, id: UInt16(truncatingIfNeeded: entropy.uint32()))
        let answer = withUnsafeTemporaryAllocation(of: IPAddress.self, capacity: 8) { addresses in
          let answer = ask(server, query, into: addresses)
          if case .addresses(let count) = answer {
            for address in addresses[..<count] {
              choice.offer(Endpoint(address: address, port: port))
            }
          }
          return answer
        }
        switch answer {
        case .addresses: return .noAddress
        case .noSuchName: return .noSuchName
        case .truncated: failure = .truncated
        case .refused, .malformed: if failure == .noAnswer { failure = .refused }
        case .unrelated: break
        }
      }
      // Another query would get the same answer.
      if failure == .truncated { return failure }
    }
    return failure
  }

  /// Sends one query to one server; `unrelated` if there was no answer.
  ///
  /// Each query is sent from a new socket, and thus from a new port, so that an attacker who has
  /// not seen the query must guess both the port and its id.
  private mutating func ask(
    _ server: Endpoint, _ query: NameQuery, into addresses: UnsafeMutableBufferPointer<IPAddress>
  ) -> NameAnswer {
    var target = clinux_datagram(to: server)
    let socket = FileDescriptor(taking: clinux_resolve_open(&target))
    guard socket.isOpen else { return .unrelated }
    // Answers have up to 512 bytes (RFC 1035 section 2.3.4); 1024 are still allocated on the stack.
    return withUnsafeTemporaryAllocation(byteCount: 1024, alignment: 1) { buffer in
      let count = query.write(to: buffer)
      guard socket.write(UnsafeRawBufferPointer(rebasing: buffer[..<count])) == count else {
        return .unrelated
      }
      let deadline = Clock.boottime().advanced(by: timeout)
      while wait(for: socket, until: deadline, query.name) {
        let count = socket.read(into: buffer)
        if count == -Int(SystemError.EAGAIN.code) { continue }
        // ECONNREFUSED and the like: no server is listening.
        if count < 0 { return .unrelated }
        let message = UnsafeRawBufferPointer(rebasing: buffer[..<count])
        let answer = NameAnswer.read(message, to: query, into: addresses)
        if answer != .unrelated { return answer }
      }
      return .unrelated
    }
  }

  /// Waits for an answer; false after the timeout. Writes a message if the lookup takes long.
  private mutating func wait(
    for socket: borrowing FileDescriptor, until deadline: Instant, _ name: UnsafeRawBufferPointer
  ) -> Bool {
    while true {
      let now = Clock.boottime()
      if !isAnnounced, now >= announcement {
        isAnnounced = true
        Output.writeLine(to: output) {
          $0.append("culvert: looking up ")
          $0.append(name)
          $0.append("...")
        }
      }
      guard now < deadline else { return false }
      let next = isAnnounced ? deadline : min(deadline, announcement)
      let milliseconds = next.since(now) / nanosecondsPerMillisecond + 1
      let ready = clinux_resolve_wait(socket.raw, Int32(truncatingIfNeeded: milliseconds))
      if ready != 0 { return ready > 0 }
    }
  }
}

/// Chooses one of several endpoints: the first with a route, or else the first.
struct ResolverChoice {
  private var routed: Endpoint?
  private var first: Endpoint?

  /// An endpoint with a route was offered, so no other can be better.
  var isSettled: Bool { routed != nil }
  var endpoint: Endpoint? { routed ?? first }

  /// Ignores unspecified and multicast addresses. Filtering name servers return such addresses for
  /// blocked names.
  mutating func offer(_ endpoint: Endpoint) {
    var endpoint = endpoint
    // The IPv6 socket is IPv6-only and could not send to a mapped address.
    endpoint.address = endpoint.address.unmapped
    guard !isSettled, !endpoint.address.isUnspecified, !endpoint.address.isMulticast else {
      return
    }
    if first == nil { first = endpoint }
    if ResolverChoice.hasRoute(to: endpoint) { routed = endpoint }
  }

  /// Whether the kernel has a route; nothing is sent.
  static func hasRoute(to endpoint: Endpoint) -> Bool {
    var target = clinux_datagram(to: endpoint)
    return FileDescriptor(taking: clinux_resolve_open(&target)).isOpen
  }
}

/// Why a name could not be resolved.
enum ResolverFailure: Equatable {
  /// The name does not exist.
  case noSuchName
  /// The name exists but has no address.
  case noAddress
  /// The addresses do not fit into a datagram.
  case truncated
  /// The name servers answered with an error.
  case refused
  /// The name servers did not answer, or could not be reached.
  case noAnswer

  /// What happened and what to do: the text after the name.
  var text: StaticString {
    switch self {
    case .noSuchName: "this host name does not exist; check the spelling"
    case .noAddress: "this host name has no IP address; check the name"
    case .truncated:
      "the name server's answer is too long; use an IP address instead of the host name"
    case .refused: "the name servers answered with an error; check /etc/resolv.conf"
    case .noAnswer: "no name server answered; check the network and /etc/resolv.conf"
    }
  }

  /// Whether a later attempt may succeed.
  var isTransient: Bool { self == .refused || self == .noAnswer }

  /// The failure to report after one lookup for each family. "No such name" applies to both
  /// families. "No address" of one family is the least informative.
  func combined(with other: ResolverFailure) -> ResolverFailure {
    if self == .noSuchName || other == .noSuchName { return .noSuchName }
    return self == .noAddress ? other : self
  }
}

/// The number of retries of a lookup, and the pauses before them, as in wg(8): 15 retries, the
/// first after a second, each pause a fifth longer than the previous one, up to 20 seconds.
/// WG_ENDPOINT_RESOLUTION_RETRIES sets another number, or "infinity".
struct ResolverRetries {
  /// Nil for no limit.
  private var left: Int?
  private var milliseconds: Int

  private static let longest = 20_000

  init(count: Int?, firstMilliseconds: Int = 1000) {
    left = count
    milliseconds = firstMilliseconds
  }

  static func fromEnvironment() -> ResolverRetries {
    if Environment.isSet("WG_ENDPOINT_RESOLUTION_RETRIES", to: "infinity") {
      return ResolverRetries(count: nil)
    }
    return ResolverRetries(count: Environment.integer("WG_ENDPOINT_RESOLUTION_RETRIES") ?? 15)
  }

  /// Milliseconds to wait before the next attempt; nil if there is none.
  mutating func next() -> Int? {
    if let left {
      guard left > 0 else { return nil }
      self.left = left - 1
    }
    defer { milliseconds = min(ResolverRetries.longest, milliseconds * 6 / 5) }
    return milliseconds
  }
}
