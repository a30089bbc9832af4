import Culvert

/// The lookup of one name: which server is asked next, for which family and how, and what has been
/// found. It does no I/O: `Resolver` sends the queries and passes on answers and errors.
///
/// Each server is asked up to three times for each family. A family without a route is only asked
/// for if the other one yields no address.
struct NameLookup: BitwiseCopyable {
  /// What to do next.
  enum Step: Equatable {
    /// Wait for the answer, or until `deadline`.
    case wait
    /// Send `query` to `server`, from a new socket.
    case ask
    /// The lookup has ended: with addresses, or with `failure`.
    case end
  }

  /// The index of the server that is asked.
  private(set) var server = 0
  /// Whether it is asked over TCP.
  private(set) var isStream = false
  private(set) var hasEDNS = true
  private(set) var family = IPAddress.Family.ipv4
  private(set) var id: UInt16 = 0
  /// When the answer is given up.
  private(set) var deadline = Deadline.never
  /// The first server that has answered.
  private(set) var answeringServer: Int?
  /// Why there are no addresses, if there are none.
  private(set) var failure = ResolverFailure.noAddress
  /// The shortest lifetime of the records that were used.
  private(set) var secondsToLive = UInt32.max
  private(set) var ipv4 = NameAddresses()
  private(set) var ipv6 = NameAddresses()

  private let serverCount: Int
  private let routes: Routes
  private var firstServer: Int
  /// Queries for this family, apart from repetitions over TCP or without EDNS0.
  private var attempt = 0
  private var hasAskedIPv4 = false
  private var hasAskedIPv6 = false
  private var familyFailure = ResolverFailure.noAnswer
  private let timeout: UInt64

  /// How many times all servers are asked.
  static let tries = 3

  /// The families with a route to the internet.
  struct Routes: BitwiseCopyable {
    var ipv4: Bool
    var ipv6: Bool
  }

  /// `begin` sets the first query.
  ///
  /// - Parameters:
  ///   - serverCount: at least 1.
  ///   - firstServer: the index of the server that is asked first.
  ///   - timeout: nanoseconds to wait for an answer; twice as long over TCP.
  init(serverCount: Int, firstServer: Int, routes: Routes, timeout: UInt64) {
    precondition(serverCount > 0 && firstServer >= 0 && firstServer < serverCount)
    self.serverCount = serverCount
    self.firstServer = firstServer
    self.routes = routes
    self.timeout = timeout
  }

  var hasAddresses: Bool { ipv4.count > 0 || ipv6.count > 0 }

  mutating func begin(at now: Instant, _ entropy: inout Entropy) -> Step {
    beginFamily(at: now, &entropy)
  }

  /// A message has arrived from the server that was asked.
  ///
  /// - Parameters:
  ///   - name: the name that is looked up.
  ///   - isCut: the message is only the beginning of a longer one.
  mutating func didReceive(
    _ message: UnsafeRawBufferPointer, for name: UnsafeRawBufferPointer, isCut: Bool = false,
    at now: Instant, _ entropy: inout Entropy
  ) -> Step {
    let query = query(name)
    var life = secondsToLive
    // The capacity is a literal, because otherwise the heap could be used.
    let answer = withUnsafeTemporaryAllocation(of: IPAddress.self, capacity: 8) { addresses in
      let answer = NameAnswer.read(message, to: query, into: addresses, &life, isCut: isCut)
      if case .addresses(let count) = answer { append(addresses[..<count]) }
      return answer
    }
    secondsToLive = life
    switch answer {
    case .unrelated: return .wait
    case .addresses, .noSuchName:
      if answeringServer == nil { answeringServer = server }
      firstServer = server
      return endFamily(answer == .noSuchName ? .noSuchName : .noAddress, at: now, &entropy)
    case .truncated where !isStream:
      isStream = true
      return ask(at: now, &entropy)
    case .truncated:
      familyFailure = .truncated
      return askNext(at: now, &entropy)
    case .refused(let code):
      // FORMERR or NOTIMP: an old server that does not know EDNS0 (RFC 6891 section 7).
      if hasEDNS, code == 1 || code == 4 {
        hasEDNS = false
        return ask(at: now, &entropy)
      }
      if familyFailure == .noAnswer { familyFailure = .refused }
      return askNext(at: now, &entropy)
    case .malformed:
      if familyFailure == .noAnswer { familyFailure = .refused }
      return askNext(at: now, &entropy)
    }
  }

  /// The server cannot be reached, or its answer has not come in time.
  mutating func didFail(at now: Instant, _ entropy: inout Entropy) -> Step {
    if isStream { familyFailure = .truncated }
    return askNext(at: now, &entropy)
  }

  func query(_ name: UnsafeRawBufferPointer) -> NameQuery {
    NameQuery(name: name, family: family, id: id, hasEDNS: hasEDNS)
  }

  // MARK: Steps

  private mutating func beginFamily(at now: Instant, _ entropy: inout Entropy) -> Step {
    // First the families with a route, IPv6 before IPv4; without addresses, the others too.
    if !hasAskedIPv6, routes.ipv6 {
      family = .ipv6
    } else if !hasAskedIPv4, routes.ipv4 {
      family = .ipv4
    } else if hasAddresses {
      return .end
    } else if !hasAskedIPv4 {
      family = .ipv4
    } else if !hasAskedIPv6 {
      family = .ipv6
    } else {
      return .end
    }
    if family == .ipv6 { hasAskedIPv6 = true } else { hasAskedIPv4 = true }
    attempt = 0
    familyFailure = .noAnswer
    return askServer(at: now, &entropy)
  }

  private mutating func endFamily(
    _ failure: ResolverFailure, at now: Instant, _ entropy: inout Entropy
  ) -> Step {
    self.failure = self.failure.combined(with: failure)
    return beginFamily(at: now, &entropy)
  }

  private mutating func askNext(at now: Instant, _ entropy: inout Entropy) -> Step {
    attempt += 1
    guard attempt < NameLookup.tries * serverCount else {
      return endFamily(familyFailure, at: now, &entropy)
    }
    return askServer(at: now, &entropy)
  }

  private mutating func askServer(at now: Instant, _ entropy: inout Entropy) -> Step {
    server = (firstServer + attempt) % serverCount
    isStream = false
    hasEDNS = true
    return ask(at: now, &entropy)
  }

  private mutating func ask(at now: Instant, _ entropy: inout Entropy) -> Step {
    id = UInt16(truncatingIfNeeded: entropy.uint32())
    deadline = .after(isStream ? 2 * timeout : timeout, from: now)
    return .ask
  }

  private mutating func append(_ addresses: Slice<UnsafeMutableBufferPointer<IPAddress>>) {
    for address in addresses {
      if family == .ipv4 { ipv4.append(address) } else { ipv6.append(address) }
    }
  }
}

/// Up to eight addresses of one family.
struct NameAddresses: BitwiseCopyable {
  private var addresses = InlineArray<8, IPAddress>(repeating: IPAddress(ipv4: 0))
  private(set) var count = 0

  subscript(index: Int) -> IPAddress { addresses[index] }

  /// Ignores an address that is there already, and one that does not belong to a single host:
  /// filtering name servers return such addresses for blocked names.
  mutating func append(_ address: IPAddress) {
    // The IPv6 socket is IPv6-only and could not send to a mapped address.
    let address = address.unmapped
    guard count < 8, !address.isUnspecified, !address.isMulticast else { return }
    for index in 0..<count where addresses[index] == address { return }
    addresses[count] = address
    count += 1
  }
}

/// Why a name could not be resolved.
enum ResolverFailure: Equatable {
  /// The name does not exist.
  case noSuchName
  /// The name exists but has no address.
  case noAddress
  /// The addresses do not fit into a datagram, and TCP does not work either.
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
      "the answer needs TCP, and the name servers do not answer over TCP; use an IP address"
    case .refused: "the name servers answered with an error; check /etc/resolv.conf"
    case .noAnswer: "no name server answered; check the network and /etc/resolv.conf"
    }
  }

  /// The failure to report after one lookup for each family. "No such name" applies to both
  /// families. "No address" of one family is the least informative.
  func combined(with other: ResolverFailure) -> ResolverFailure {
    if self == .noSuchName || other == .noSuchName { return .noSuchName }
    return self == .noAddress ? other : self
  }
}
