import CLinux
import Culvert

/// The log, in wireguard-go's format: "ERROR: (wg0) 2026/11/22 11:12:42 text", in UTC.
///
/// The overall rate is limited, so that a flood of errors does not become a flood of lines (R20).
/// The next line that is written contains the number of suppressed lines.
struct Log: Sendable {
  enum Level: UInt8, Comparable, Sendable, BitwiseCopyable {
    case silent = 0
    case error = 1
    case verbose = 2

    static func < (left: Level, right: Level) -> Bool { left.rawValue < right.rawValue }

    /// LOG_LEVEL as in wireguard-go: "verbose" or "debug", or "silent". Any other value, or no
    /// LOG_LEVEL, means "error".
    static func fromEnvironment() -> Level {
      if Environment.isSet("LOG_LEVEL", to: "verbose") { return .verbose }
      if Environment.isSet("LOG_LEVEL", to: "debug") { return .verbose }
      if Environment.isSet("LOG_LEVEL", to: "silent") { return .silent }
      return .error
    }
  }

  var level: Level
  var name: InterfaceName
  /// The output descriptor; stdout by default, as with wireguard-go.
  let raw: Int32

  /// Lines that may be written at once, and lines per second after that.
  static let burst: UInt64 = 50
  static let linesPerSecond: UInt64 = 5

  private var budget = TokenBucket(perSecond: Log.linesPerSecond, burst: Log.burst)
  private(set) var suppressedCount: UInt64 = 0

  init(_ level: Level, _ name: InterfaceName, to raw: Int32 = Output.standardOutput) {
    self.level = level
    self.name = name
    self.raw = raw
  }

  mutating func error(at now: Instant, _ body: (inout Line) -> Void) {
    if level >= .error { write("ERROR: (", now, body) }
  }

  mutating func verbose(at now: Instant, _ body: (inout Line) -> Void) {
    if level >= .verbose { write("DEBUG: (", now, body) }
  }

  private mutating func write(
    _ prefix: StaticString, _ now: Instant, _ body: (inout Line) -> Void
  ) {
    guard admit(at: now) else { return }
    Output.writeLine(to: raw) { line in
      appendHead(prefix, &line)
      body(&line)
    }
  }

  // These functions are separate because `write` is specialised for each caller's text.

  private mutating func admit(at now: Instant) -> Bool {
    let isAdmitted = budget.allow(at: now)
    if !isAdmitted { suppressedCount &+= 1 }
    return isAdmitted
  }

  private mutating func appendHead(_ prefix: StaticString, _ line: inout Line) {
    line.append(prefix)
    line.append(name)
    line.append(") ")
    line.append(Clock.realtime())
    line.append(byte: UInt8(ascii: " "))
    if suppressedCount > 0 {
      line.append("[")
      line.append(decimal: suppressedCount)
      line.append(" lines suppressed] ")
    }
    suppressedCount = 0
  }
}

/// Writes text for the user to descriptors that it does not own.
package enum Output {
  package static var standardOutput: Int32 { 1 }
  package static var standardError: Int32 { 2 }

  // The size of 512 bytes is a literal, so that the compiler allocates a line on the stack. With a
  // computed size, the heap could be used.

  /// Writes the text that `body` appends, up to 512 bytes, without a newline.
  static func write(to raw: Int32, _ body: (inout Line) -> Void) {
    withUnsafeTemporaryAllocation(byteCount: 512, alignment: 1) { buffer in
      var line = Line(into: buffer)
      body(&line)
      write(line.bytes, to: raw)
    }
  }

  /// Writes the line that `body` appends, up to 511 bytes, and a newline.
  package static func writeLine(to raw: Int32, _ body: (inout Line) -> Void) {
    withUnsafeTemporaryAllocation(byteCount: 512, alignment: 1) { buffer in
      // One byte is reserved for the newline.
      var line = Line(into: UnsafeMutableRawBufferPointer(rebasing: buffer.dropLast()))
      body(&line)
      end(line, in: buffer, to: raw)
    }
  }

  private static func end(_ line: Line, in buffer: UnsafeMutableRawBufferPointer, to raw: Int32) {
    buffer[line.count] = UInt8(ascii: "\n")
    write(UnsafeRawBufferPointer(rebasing: buffer[..<(line.count + 1)]), to: raw)
  }

  /// Writes all bytes, unless the descriptor fails. A command whose output is its purpose asks for
  /// failures with `end`; a log ignores them, because there is no other place to report them.
  /// While there is a helper process, it writes to standard output and standard error, and this
  /// function never waits (R42).
  package static func write(_ bytes: UnsafeRawBufferPointer, to raw: Int32) {
    if clinux_helper_write(raw, bytes.baseAddress, bytes.count) != 0 { return }
    var rest = bytes
    while rest.count > 0 {
      let count = clinux_file_write(raw, rest.baseAddress, rest.count)
      if count <= 0 {
        if raw == standardOutput { clinux_file_note_output(Int32(truncatingIfNeeded: count)) }
        return
      }
      rest = UnsafeRawBufferPointer(rebasing: rest[count...])
    }
  }

  /// Closes standard output. Returns the first error of writing to it; nil if all was written.
  package static func end() -> SystemError? {
    let error = clinux_file_end_output()
    return error == 0 ? nil : SystemError(code: -error)
  }

  /// Reads standard input to its end, or until the buffer is full. Returns the byte count.
  package static func readInput(into buffer: UnsafeMutableRawBufferPointer) -> Int {
    var count = 0
    while count < buffer.count {
      let read = clinux_file_read(0, buffer.baseAddress! + count, buffer.count - count)
      if read <= 0 { break }
      count += read
    }
    return count
  }
}
