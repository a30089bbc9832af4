import CLinux
import Culvert

/// Host names to addresses, for the start: it waits for its answers. Instead of getaddrinfo(3),
/// which a static binary cannot have: /etc/hosts, then the name servers of /etc/resolv.conf over
/// UDP (RFC 1035 section 7, RFC 5452 section 9).
///
/// Of resolv.conf only `nameserver` counts, up to three, and 127.0.0.1 where there is none. A name
/// is complete as it is written: no search list. No TCP.
public struct Resolver {
  /// NUL-terminated paths, never freed.
  private let hosts: UnsafePointer<CChar>
  private let configuration: UnsafePointer<CChar>
  private let port: UInt16
  /// What a server is given to answer in.
  private let timeout: UInt64
  /// Where the user is told that it takes long.
  private let output: Int32
  /// When that is, and whether it has been.
  private var announcement = Instant(nanoseconds: 0)
  private var isAnnounced = false
  private var entropy = Entropy.sodium

  static let maximumServers = 3
  /// How often all servers are asked.
  private static let tries = 3

  /// The system's.
  public init() {
    // String literals are NUL-terminated.
    let hosts: StaticString = "/etc/hosts"
    let configuration: StaticString = "/etc/resolv.conf"
    self.init(
      hosts: UnsafeRawPointer(hosts.utf8Start).assumingMemoryBound(to: CChar.self),
      configuration: UnsafeRawPointer(configuration.utf8Start).assumingMemoryBound(to: CChar.self))
  }

  /// Other files and another port, for tests.
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

  /// Looks a name up, once. The family that there is a route for comes first, IPv6 before IPv4,
  /// and then the other.
  ///
  /// - Parameters:
  ///   - name: as `ConfigHostName.name` gives it, or an address as text.
  ///   - port: of the endpoint.
  mutating func find(_ name: UnsafeRawBufferPointer, port: UInt16) -> Answer {
    if let address = AddressText.address(name) {
      return .endpoint(Endpoint(address: address.unmapped, port: port))
    }
    guard let name = ConfigHostName.name(name) else { return .failure(.noSuchName) }
    announcement = Clock.boottime().advanced(by: nanosecondsPerSecond)
    isAnnounced = false
    if let endpoint = findInHosts(name, port: port) { return .endpoint(endpoint) }
    // Literals, here and below, or the memory might come from the heap.
    return withUnsafeTemporaryAllocation(of: Endpoint.self, capacity: 3) { servers in
      findAtServers(name, port: port, readServers(into: servers))
    }
  }

  // MARK: Files

  /// The first line of a family counts, as for getaddrinfo(3).
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

  /// The servers of resolv.conf, at least one.
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
    // Any global address does: what counts is whether there is a route out.
    let probe = IPAddress(ipv6High: 0x2001_0db8_0000_0000, low: 1)
    let hasIPv6 = ResolverChoice.hasRoute(to: Endpoint(address: probe, port: port))
    let first = ask(name, hasIPv6 ? .ipv6 : .ipv4, port: port, servers, &choice)
    if choice.isSettled, let endpoint = choice.endpoint { return .endpoint(endpoint) }
    let second = ask(name, hasIPv6 ? .ipv4 : .ipv6, port: port, servers, &choice)
    if let endpoint = choice.endpoint { return .endpoint(endpoint) }
    return .failure(first.combined(with: second))
  }

  /// Asks for the addresses of one family and offers them to `choice`. What is returned counts
  /// where there were none.
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
      // Whoever has answered would say the same again.
      if failure == .truncated { return failure }
    }
    return failure
  }

  /// One question to one server. `unrelated` where there was no answer.
  ///
  /// Each goes out from a socket, and so from a port, of its own: who has not seen the question
  /// must guess both the port and the query's id.
  private mutating func ask(
    _ server: Endpoint, _ query: NameQuery, into addresses: UnsafeMutableBufferPointer<IPAddress>
  ) -> NameAnswer {
    var target = clinux_datagram(to: server)
    let socket = FileDescriptor(taking: clinux_resolve_open(&target))
    guard socket.isOpen else { return .unrelated }
    // Answers are of up to 512 bytes (RFC 1035 section 2.3.4); 1024 still come from the stack.
    return withUnsafeTemporaryAllocation(byteCount: 1024, alignment: 1) { buffer in
      let count = query.write(to: buffer)
      guard socket.write(UnsafeRawBufferPointer(rebasing: buffer[..<count])) == count else {
        return .unrelated
      }
      let deadline = Clock.boottime().advanced(by: timeout)
      while wait(for: socket, until: deadline, query.name) {
        let count = socket.read(into: buffer)
        if count == -Int(SystemError.EAGAIN.code) { continue }
        // ECONNREFUSED and the like: nobody is there.
        if count < 0 { return .unrelated }
        let message = UnsafeRawBufferPointer(rebasing: buffer[..<count])
        let answer = NameAnswer.read(message, to: query, into: addresses)
        if answer != .unrelated { return answer }
      }
      return .unrelated
    }
  }

  /// False when the time is up. Tells the user when it takes long.
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

/// The endpoint chosen of several: the first that there is a route to, or else the first.
struct ResolverChoice {
  private var routed: Endpoint?
  private var first: Endpoint?

  /// An endpoint with a route was offered: no other can be better.
  var isSettled: Bool { routed != nil }
  var endpoint: Endpoint? { routed ?? first }

  /// Addresses that nobody can be reached at are left out: filtering name servers give them for
  /// what they block.
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

  /// Whether the kernel knows a way; nothing is sent.
  static func hasRoute(to endpoint: Endpoint) -> Bool {
    var target = clinux_datagram(to: endpoint)
    return FileDescriptor(taking: clinux_resolve_open(&target)).isOpen
  }
}

extension clinux_datagram {
  /// Only the target; for `clinux_resolve_open`.
  init(to endpoint: Endpoint) {
    self.init()
    address_high = endpoint.address.high
    address_low = endpoint.address.low
    scope = endpoint.scope
    port = endpoint.port
    family = endpoint.address.family.rawValue
  }
}

/// Why a name has no address for us.
enum ResolverFailure: Equatable {
  /// The name servers say that there is no such name.
  case noSuchName
  /// The name is there and has no address.
  case noAddress
  /// The addresses do not fit into a datagram.
  case truncated
  /// The name servers can be reached and do not say.
  case refused
  /// The name servers do not answer, or cannot be reached.
  case noAnswer

  /// A clause that says what to do.
  var text: StaticString {
    switch self {
    case .noSuchName: "there is no such name; check the spelling"
    case .noAddress: "the name has no IP address; check the name"
    case .truncated: "its name server's answer is too large; write an address in place of the name"
    case .refused: "the name servers refuse to answer; check /etc/resolv.conf"
    case .noAnswer: "the name servers do not answer; check the network and /etc/resolv.conf"
    }
  }

  /// Another time it may be different.
  var isTransient: Bool { self == .refused || self == .noAnswer }

  /// What two failures, one for each family, come to. That the name does not exist is so for both;
  /// that it has no address of one family is the least that can be said.
  func combined(with other: ResolverFailure) -> ResolverFailure {
    if self == .noSuchName || other == .noSuchName { return .noSuchName }
    return self == .noAddress ? other : self
  }
}

/// How often and after which pauses a name is looked up again, as wg(8) does it: 15 times, after a
/// second and then each time a fifth longer, up to 20 seconds. WG_ENDPOINT_RESOLUTION_RETRIES is
/// another number, or "infinity".
struct ResolverRetries {
  /// Nil for ever.
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

  /// Milliseconds to wait before the next try; nil where there is none.
  mutating func next() -> Int? {
    if let left {
      guard left > 0 else { return nil }
      self.left = left - 1
    }
    defer { milliseconds = min(ResolverRetries.longest, milliseconds * 6 / 5) }
    return milliseconds
  }
}
