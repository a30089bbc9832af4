/// What a batch copies from the tunnel about one session, so that the cipher can run without
/// looking at the tunnel. The key itself lies in the batch's part of the locked memory.
struct BatchSession: BitwiseCopyable {
  var peer: PeerID
  /// Outbound: the peer's index, written into each header.
  var receiver: UInt32
  /// Ours, by which `deliver` finds the session again.
  var localIndex: UInt32
  var path: Path
  /// Outbound: whether sending was tried, whether transport data and among it data really went
  /// out, and whether the path's local address turned out to be gone.
  var didTry = false
  var didSendTransport = false
  var didSendData = false
  var didLoseSource = false
  var didRefuseSegments = false
  /// Outbound: datagrams of this size and above go one by one (see `Peer.segmentLimit`).
  var segmentLimit: UInt16 = .max
  /// Outbound: datagrams and their bytes that went out, and datagrams that the kernel refused.
  var sentCount: UInt32 = 0
  var failedCount: UInt32 = 0
  var sentByteCount: UInt64 = 0

  init(peer: PeerID, receiver: UInt32 = 0, localIndex: UInt32 = 0, path: Path) {
    self.peer = peer
    self.receiver = receiver
    self.localIndex = localIndex
    self.path = path
  }
}

/// The sessions of one batch, each with its key, in fixed tables.
struct BatchSessions: ~Copyable {
  private let sessions: UnsafeMutablePointer<BatchSession>
  private let keys: UnsafeMutableRawPointer
  private let capacity: Int
  private(set) var count = 0

  init(
    carvingFrom arena: inout Arena, keys: UnsafeMutableRawPointer, capacity: Int,
    owner: StaticString
  ) {
    sessions = arena.carve(BatchSession.self, count: capacity, owner: owner).baseAddress!
    self.keys = keys
    self.capacity = capacity
  }

  subscript(index: UInt16) -> UnsafeMutablePointer<BatchSession> {
    sessions + Int(index)
  }

  func key(_ index: UInt16) -> UnsafeMutableRawPointer {
    keys + Int(index) * WireGuard.keyByteCount
  }

  /// There is one session per packet at most, so this cannot overflow.
  @inline(never)
  mutating func append(_ session: BatchSession, key: UnsafeRawPointer?) -> UInt16 {
    precondition(count < capacity)
    let index = UInt16(truncatingIfNeeded: count)
    sessions[count] = session
    if let key {
      self.key(index).copyMemory(from: key, byteCount: WireGuard.keyByteCount)
    }
    count += 1
    return index
  }

  /// Wipes the keys and forgets the sessions.
  mutating func reset() {
    Secret.wipe(keys, byteCount: count * WireGuard.keyByteCount)
    count = 0
  }
}
