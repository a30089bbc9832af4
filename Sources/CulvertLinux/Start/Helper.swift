import CLinux
import Culvert

/// The helper process. It does everything that can block for longer than a packet may wait: it
/// writes the log and standard error, and reads and writes the state files (R41, R42). No function
/// here waits for it, unless it has a timeout.
///
/// There is one helper, so these functions are static.
enum Helper {
  enum Request: UInt32 {
    case read = 1
    case write = 2
    case discardOutput = 3
  }

  enum Reply {
    /// The timestamp in the file of a hop; nil if it has none.
    case stored(TAI64N?, hop: Int)
    /// The timestamp is stored, unless there is an error.
    case didStore(TAI64N, SystemError?, hop: Int)
    case didDiscardOutput
    /// There is no reply yet.
    case none
    /// The helper has ended.
    case gone
  }

  /// How long a start waits for the state directory, in milliseconds.
  static let startMilliseconds: Int32 = 2000
  /// How long an exit waits for the last timestamps, and then for the last lines. Together with the
  /// rest of the exit, it must be less than a second.
  static let exitMilliseconds: Int32 = 400

  /// Starts the helper. Call it before threads are started and before keys are in memory.
  ///
  /// - Parameter directory: of the state files; NUL-terminated, never freed. Nil for the default.
  static func start(_ directory: UnsafePointer<CChar>?) throws(SystemError) {
    let literal = UnsafeRawPointer(StateFile.defaultDirectory.utf8Start)
    try checked(
      clinux_helper_start(directory ?? literal.assumingMemoryBound(to: CChar.self)))
  }

  /// For epoll: readable when a reply has arrived, or when the helper has ended. -1 if there is
  /// none.
  static var raw: Int32 { clinux_helper_descriptor() }

  /// 0, or -errno.
  @discardableResult
  static func send(
    _ kind: Request, tag: Int = 0, _ name: InterfaceName? = nil, _ stamp: TAI64N? = nil
  ) -> Int32 {
    var request = clinux_request()
    request.kind = kind.rawValue
    request.tag = UInt32(truncatingIfNeeded: tag)
    withUnsafeMutableBytes(of: &request.name) { buffer in
      name?.withBytes { buffer.copyBytes(from: $0.prefix(buffer.count - 1)) }
    }
    if let stamp {
      withUnsafeMutableBytes(of: &request.bytes) { stamp.write(to: $0.baseAddress!) }
    }
    return clinux_helper_send(&request)
  }

  /// Waits for the next reply.
  static func receive(milliseconds: Int32 = 0) -> Reply {
    var request = clinux_request()
    let result = clinux_helper_receive(&request, milliseconds)
    if result < 0 { return .gone }
    guard result > 0, let kind = Request(rawValue: request.kind) else { return .none }
    let hop = Int(request.tag)
    let stamp = withUnsafeBytes(of: &request.bytes) { TAI64N(at: $0.baseAddress!) }
    switch kind {
    case .read:
      let isUsable = request.result == Int32(WireGuard.timestampByteCount)
      return .stored(isUsable ? stamp : nil, hop: hop)
    case .write:
      let error = request.result < 0 ? SystemError(code: -request.result) : nil
      return .didStore(stamp, error, hop: hop)
    case .discardOutput: return .didDiscardOutput
    }
  }

  /// Starts another helper after the last one was killed, with a new `raw`. Throws EAGAIN
  /// within a minute of the last restart.
  static func restart() throws(SystemError) { try checked(clinux_helper_restart()) }

  /// Reports that there is no helper any more. Nothing is logged or stored afterwards.
  static func abandon() { clinux_helper_abandon() }

  /// Ends the helper after it has written the last lines, or kills it.
  static func end(milliseconds: Int32 = exitMilliseconds) { clinux_helper_end(milliseconds) }
}
