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
    case reload = 4
    /// Only replies.
    case forgetNames = 5
    case name = 6
  }

  enum Reply {
    /// The timestamp in the file of a hop; nil if it has none.
    case stored(TAI64N?, hop: Int)
    /// The timestamp is stored, unless there is an error.
    case didStore(TAI64N, SystemError?, hop: Int)
    case didDiscardOutput
    /// The configuration files have been read again.
    case didReload(ReloadResult)
    /// The peers of a hop have no host names any more; those that they have follow.
    case forgetNames(hop: Int)
    case name(HostName, hop: Int)
    /// There is no reply yet.
    case none
    /// The helper has ended.
    case gone
  }

  enum ReloadResult: Equatable {
    case applied
    /// The reason has been printed.
    case refused
    /// EBUSY if they are still being read.
    case failed(SystemError)
  }

  /// A peer's endpoint, given by host name.
  struct HostName {
    var publicKey: Key
    var port: UInt16
    var byteCount: Int
    /// Only the first `byteCount` bytes are used.
    var text: InlineArray<256, UInt8>

    func withText(_ body: (UnsafeRawBufferPointer) -> Void) {
      withUnsafeBytes(of: text) { body(UnsafeRawBufferPointer(rebasing: $0[..<byteCount])) }
    }
  }

  /// Of the state files.
  private static var defaultDirectory: StaticString { "/var/lib/culvert" }

  /// How long a start waits for the state directory, in milliseconds.
  static let startMilliseconds: Int32 = 2000
  /// How long an exit waits for the last timestamps, and then for the last lines. Together with the
  /// rest of the exit, it must be less than a second.
  static let exitMilliseconds: Int32 = 400

  /// Starts the helper. Call it before threads are started and before keys are in memory.
  ///
  /// - Parameters:
  ///   - directory: of the state files; NUL-terminated, never freed. Nil for the default.
  ///   - reload: as described in helper.h.
  static func start(
    _ directory: UnsafePointer<CChar>?, reload: clinux_reload
  ) throws(SystemError) {
    // String literals are NUL-terminated.
    let literal = UnsafeRawPointer(defaultDirectory.utf8Start)
    try checked(
      clinux_helper_start(directory ?? literal.assumingMemoryBound(to: CChar.self), reload))
  }

  /// For epoll: readable when a reply has arrived, or when the helper has ended. -1 if there is
  /// none.
  static var raw: Int32 { clinux_helper_descriptor() }

  /// 0, or -errno.
  @discardableResult
  static func send(
    _ kind: Request, tag: Int = 0, _ name: InterfaceName? = nil, _ stamp: TAI64N? = nil
  ) -> Int32 {
    var request = clinux_request(kind, tag)
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
    case .reload: return .didReload(ReloadResult(request.result))
    case .forgetNames: return .forgetNames(hop: hop)
    case .name: return .name(HostName(request), hop: hop)
    }
  }

  /// Sends a reply to the program, from the process that reads the configuration files again.
  static func reply(
    _ kind: Request, of hop: Int, _ name: HostName? = nil
  ) throws(SystemError) {
    var request = clinux_request(kind, hop)
    name?.write(to: &request)
    try checked(clinux_helper_reply(&request))
  }

  /// Starts another helper after the last one was killed, with a new `raw`. Throws EAGAIN
  /// within a minute of the last restart.
  static func restart() throws(SystemError) { try checked(clinux_helper_restart()) }

  /// Reports that there is no helper any more. Nothing is logged or stored afterwards.
  static func abandon() { clinux_helper_abandon() }

  /// Ends the helper after it has written the last lines, or kills it.
  static func end(milliseconds: Int32 = exitMilliseconds) { clinux_helper_end(milliseconds) }
}

extension clinux_request {
  fileprivate init(_ kind: Helper.Request, _ tag: Int) {
    self.init()
    self.kind = kind.rawValue
    self.tag = UInt32(truncatingIfNeeded: tag)
  }
}

extension Helper.ReloadResult {
  /// - Parameter code: as returned by `clinux_reload`.
  init(_ code: Int32) {
    self = code == 0 ? .applied : code < 0 ? .failed(SystemError(code: -code)) : .refused
  }

  var code: Int32 {
    switch self {
    case .applied: 0
    case .refused: 1
    case .failed(let error): -error.code
    }
  }
}

extension Helper.HostName {
  /// - Parameter name: what exceeds 256 bytes is left out.
  init(_ publicKey: Key, _ name: UnsafeRawBufferPointer, _ port: UInt16) {
    self.publicKey = publicKey
    self.port = port
    byteCount = min(name.count, 256)
    text = InlineArray(repeating: 0)
    for index in 0..<byteCount { text[index] = name[index] }
  }

  fileprivate init(_ request: clinux_request) {
    let publicKey = withUnsafeBytes(of: request.public_key) { Key(at: $0.baseAddress!) }
    self = withUnsafeBytes(of: request.text) { text in
      let name = UnsafeRawBufferPointer(rebasing: text.prefix(Int(request.text_byte_count)))
      return Helper.HostName(publicKey, name, request.port)
    }
  }

  fileprivate func write(to request: inout clinux_request) {
    withUnsafeMutableBytes(of: &request.public_key) { publicKey.write(to: $0.baseAddress!) }
    request.port = port
    request.text_byte_count = UInt16(truncatingIfNeeded: byteCount)
    withUnsafeMutableBytes(of: &request.text) { target in
      withText { target.copyBytes(from: $0) }
    }
  }
}
