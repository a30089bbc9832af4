import CLinux
import Culvert

/// A client of a configuration socket, as wg(8) is one. It blocks, so it is only for processes that
/// carry no packets.
struct UAPIClient: ~Copyable {
  private let descriptor: FileDescriptor
  private var reader: LineReader
  private var writer: ByteWriter

  private enum Layout {
    static let lineByteCount = 2048
    static let requestByteCount = 4096
  }
  /// Bytes of the memory that `init` takes.
  static var byteCount: Int { Layout.lineByteCount + Layout.requestByteCount }

  /// Connects to the socket of an interface, in the directory that wg(8) uses.
  ///
  /// - Parameter memory: `byteCount` bytes, locked, because keys pass through them.
  init(_ name: InterfaceName, memory: UnsafeMutableRawBufferPointer) throws(SystemError) {
    precondition(memory.count >= UAPIClient.byteCount)
    let directory = UnsafeRawPointer(UAPIListener.defaultDirectory.utf8Start)
      .assumingMemoryBound(to: CChar.self)
    descriptor = FileDescriptor(
      taking: try checked(name.withCString { clinux_uapi_connect(directory, $0) }))
    reader = LineReader(
      buffer: UnsafeMutableRawBufferPointer(
        rebasing: memory[..<Layout.lineByteCount]))
    writer = ByteWriter(
      UnsafeMutableRawBufferPointer(
        rebasing: memory[Layout.lineByteCount..<UAPIClient.byteCount]))
  }

  /// Appends a part to the request. What does not fit any more is sent first.
  ///
  /// - Parameter append: returns false, and appends nothing, if there is no room.
  mutating func write(_ append: (inout ByteWriter) -> Bool) throws(SystemError) {
    if append(&writer) { return }
    try flush()
    if !append(&writer) { throw .EMSGSIZE }
  }

  mutating func write(_ text: StaticString) throws(SystemError) {
    try write { writer in
      let start = writer.count
      writer.append(text)
      guard writer.hasOverflowed else { return true }
      writer.rewind(to: start)
      return false
    }
  }

  /// Sends the rest of the request, and passes the lines of the reply to `body`. Throws the error
  /// that the reply ends with.
  mutating func finish(_ body: (UnsafeRawBufferPointer) -> Void) throws(SystemError) {
    try write("\n")
    try flush()
    while true {
      switch reader.next() {
      case .line(let line):
        if let code = UAPIClient.errorCode(in: line) {
          if code != 0 { throw SystemError(code: code) }
          return
        }
        body(line)
      case .overlong: throw .EMSGSIZE
      case .incomplete:
        let count = descriptor.read(into: reader.makeRoom())
        if count < 0 { throw SystemError(code: Int32(-count)) }
        if count == 0 { throw .EIO }
        reader.didReceive(byteCount: count)
      }
    }
  }

  private mutating func flush() throws(SystemError) {
    var sent = 0
    while sent < writer.count {
      let rest = UnsafeRawBufferPointer(rebasing: writer.written[sent...])
      let count = descriptor.write(rest)
      if count <= 0 { throw SystemError(code: Int32(-count)) }
      sent += count
    }
    writer.rewind()
  }

  /// What follows `key` in a line; nil if the line begins otherwise.
  static func value(
    of key: StaticString, in line: UnsafeRawBufferPointer
  ) -> UnsafeRawBufferPointer? {
    guard line.count >= key.utf8CodeUnitCount else { return nil }
    for index in 0..<key.utf8CodeUnitCount where line[index] != key.utf8Start[index] { return nil }
    return UnsafeRawBufferPointer(rebasing: line[key.utf8CodeUnitCount...])
  }

  /// The positive errno of "errno=-22", the last line of a reply; nil for another line.
  private static func errorCode(in line: UnsafeRawBufferPointer) -> Int32? {
    guard let number = value(of: "errno=", in: line) else { return nil }
    var code: Int32 = 0
    for byte in number where byte != UInt8(ascii: "-") {
      guard byte >= UInt8(ascii: "0"), byte <= UInt8(ascii: "9"), code < 100_000 else {
        return SystemError.EIO.code
      }
      code = code * 10 + Int32(byte - UInt8(ascii: "0"))
    }
    return code
  }
}
