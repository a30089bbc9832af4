import Culvert

/// Stores a handshake timestamp across restarts (R28). Without it, a device that boots without a
/// real-time clock would start again with timestamps that its peers have already seen, and they
/// would refuse its handshakes. The helper process does the work.
struct TimestampFile {
  /// The interface's at startup, also of its configuration socket.
  let name: InterfaceName
  private let hop: Int

  /// The file of the tunnel `hop`, which had this name at startup.
  init(_ name: InterfaceName, hop: Int) {
    self.name = name
    self.hop = hop
  }

  /// Requests the stored timestamp. The reply is a `Helper.Reply.stored`.
  func read() { Helper.send(.read, tag: hop, name) }

  /// Requests that the file is replaced. The reply is a `Helper.Reply.didStore`.
  ///
  /// - Returns: nil, or why the request could not be sent.
  func write(_ stamp: TAI64N) -> SystemError? {
    let result = Helper.send(.write, tag: hop, name, stamp)
    return result < 0 ? SystemError(code: -result) : nil
  }
}
