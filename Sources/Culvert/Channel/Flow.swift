/// One client of a forwarder and what it has to do with the destination: the row of `FlowTable`.
struct Flow: BitwiseCopyable {
  /// How much is lost with the flow. Each stage has a list of its flows, ordered by last use.
  enum Stage: UInt8, BitwiseCopyable {
    /// Nobody's.
    case free
    /// The client has sent, and nobody has answered yet.
    case waiting
    /// The client has had its answer and has not come back since: most of DNS ends here.
    case answered
    /// The client went on after an answer.
    case conversing

    static var count: Int { 4 }
  }

  /// Where the client is, and which of our addresses it asked and is to be answered from.
  var client: Path
  /// The local port inside the tunnel that stands for this flow. That of a free flow is the last
  /// one that it had.
  var port: UInt16
  /// Which of the forwarder's mappings the client asked.
  var mapping: UInt8
  var stage: Stage
  /// Place + 1 of the neighbours in the stage's list; 0 for none.
  var older: UInt16
  var newer: UInt16
  /// Place + 1 of the next flow whose hash is the same; 0 for none.
  var next: UInt16
  /// Of the last datagram in either direction.
  var lastUse: Instant
}

/// The ends of a stage's list: places + 1, 0 where it is empty.
struct FlowList: BitwiseCopyable {
  var oldest: UInt16
  var newest: UInt16
}
