import CLinux
import Culvert

/// The log: lines as wireguard-go writes them, "ERROR: (wg0) 2026/11/22 11:12:42 text", in UTC.
///
/// It is rate-limited as a whole, so that a flood of errors is no flood of lines (R20); how many
/// were left out is said when there is room again.
public struct Log: Sendable {
  public enum Level: UInt8, Comparable, Sendable, BitwiseCopyable {
    case silent = 0
    case error = 1
    case verbose = 2

    public static func < (left: Level, right: Level) -> Bool { left.rawValue < right.rawValue }

    /// LOG_LEVEL as wireguard-go reads it: "verbose" and "debug", "silent"; everything else, and
    /// nothing, is "error".
    public static func fromEnvironment() -> Level {
      if Environment.isSet("LOG_LEVEL", to: "verbose") { return .verbose }
      if Environment.isSet("LOG_LEVEL", to: "debug") { return .verbose }
      if Environment.isSet("LOG_LEVEL", to: "silent") { return .silent }
      return .error
    }
  }

  public var level: Level
  public var name: InterfaceName
  /// Descriptor that is written to; stdout as with wireguard-go.
  public let raw: Int32

  /// Lines at once, and lines a second after that.
  static let burst: UInt64 = 50
  static let linesPerSecond: UInt64 = 5

  private var budget = TokenBucket(perSecond: Log.linesPerSecond, burst: Log.burst)
  public private(set) var suppressedCount: UInt64 = 0

  public init(_ level: Level, _ name: InterfaceName, to raw: Int32 = Output.standardOutput) {
    self.level = level
    self.name = name
    self.raw = raw
  }

  public mutating func error(at now: Instant, _ body: (inout Line) -> Void) {
    if level >= .error { write("ERROR: (", now, body) }
  }

  public mutating func verbose(at now: Instant, _ body: (inout Line) -> Void) {
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

  // What follows stays out of line: `write` is specialised for the text of every caller.

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
    line.append(byte: 0x20)
    if suppressedCount > 0 {
      line.append("[")
      line.append(decimal: suppressedCount)
      line.append(" lines left out] ")
    }
    suppressedCount = 0
  }
}

extension Line {
  /// "2026/11/22 11:12:42", in UTC: the local time zone is a file to be read and memory to be had.
  public mutating func append(_ time: WallTime) {
    // Days to a date after Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms", with
    // years that begin in March so that the leap day comes last. The clamp is the year 9999.
    let seconds = min(time.seconds, 253_402_300_799)
    let days = seconds / 86_400 + 719_468
    let era = days / 146_097
    let dayOfEra = days % 146_097
    let yearOfEra =
      (dayOfEra - dayOfEra / 1460 + dayOfEra / 36_524 - dayOfEra / 146_096) / 365
    let dayOfYear = dayOfEra - (365 * yearOfEra + yearOfEra / 4 - yearOfEra / 100)
    let shiftedMonth = (5 * dayOfYear + 2) / 153
    let month = shiftedMonth < 10 ? shiftedMonth + 3 : shiftedMonth - 9
    append(decimal: era * 400 + yearOfEra + (month <= 2 ? 1 : 0), width: 4)
    append("/")
    append(decimal: month, width: 2)
    append("/")
    append(decimal: dayOfYear - (153 * shiftedMonth + 2) / 5 + 1, width: 2)
    append(" ")
    append(decimal: seconds / 3600 % 24, width: 2)
    append(":")
    append(decimal: seconds / 60 % 60, width: 2)
    append(":")
    append(decimal: seconds % 60, width: 2)
  }
}

/// Text for people, on descriptors that somebody else owns.
public enum Output {
  public static var standardOutput: Int32 { 1 }
  public static var standardError: Int32 { 2 }

  // The 512 bytes of a line are written as a literal: the compiler takes them from the stack, and
  // for anything else it would keep a way to the heap.

  /// Writes what `body` puts together, up to 512 bytes, as it is.
  public static func write(to raw: Int32, _ body: (inout Line) -> Void) {
    withUnsafeTemporaryAllocation(byteCount: 512, alignment: 1) { buffer in
      var line = Line(into: buffer)
      body(&line)
      write(line.bytes, to: raw)
    }
  }

  /// Writes what `body` puts together, up to 511 bytes, and ends the line.
  public static func writeLine(to raw: Int32, _ body: (inout Line) -> Void) {
    withUnsafeTemporaryAllocation(byteCount: 512, alignment: 1) { buffer in
      // One byte is kept for the end of the line, however long the rest.
      var line = Line(into: UnsafeMutableRawBufferPointer(rebasing: buffer.dropLast()))
      body(&line)
      end(line, in: buffer, to: raw)
    }
  }

  private static func end(_ line: Line, in buffer: UnsafeMutableRawBufferPointer, to raw: Int32) {
    buffer[line.count] = 0x0a
    write(UnsafeRawBufferPointer(rebasing: buffer[..<(line.count + 1)]), to: raw)
  }

  /// Writes bytes, all of them unless the descriptor fails. The failure is of no interest: there is
  /// nowhere left to report it.
  public static func write(_ bytes: UnsafeRawBufferPointer, to raw: Int32) {
    var rest = bytes
    while rest.count > 0 {
      let count = clinux_file_write(raw, rest.baseAddress, rest.count)
      if count <= 0 { return }
      rest = UnsafeRawBufferPointer(rebasing: rest[count...])
    }
  }

  /// Reads standard input to its end or until the buffer is full; the byte count.
  public static func readInput(into buffer: UnsafeMutableRawBufferPointer) -> Int {
    var count = 0
    while count < buffer.count {
      let read = clinux_file_read(0, buffer.baseAddress! + count, buffer.count - count)
      if read <= 0 { break }
      count += read
    }
    return count
  }
}
