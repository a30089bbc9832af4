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
