@testable import Culvert

/// A file through a reader and a parser, and what was seen on the way.
final class ConfigFixture {
  static let keyText = "hSDwCYkwp1R0i33ctD73Wg2/Og0mOBr066SpjqqbTmo="
  static let otherText = "6Ii5bUV20MHhBzcnUr0dyeYYPEX6E4/0ZZKDLI7/q18="
  static let guardByteCount = 16

  /// What the lines said, failures included.
  private(set) var statements: [ConfigStatement] = []
  /// Host names and zones, in the order of the endpoints that brought one.
  private(set) var names: [String] = []
  /// Secrets, in the order of the statements that brought one.
  private(set) var secrets: [[UInt8]] = []
  /// The key that the failure names.
  private(set) var failedKey = ""
  private(set) var end: ConfigError?
  /// True where bytes beside the parser's memory were written, or a secret outlived its statement.
  private(set) var isUnclean = false

  convenience init(_ text: String, lineByteCount: Int = 512, pieceByteCount: Int = .max) {
    self.init(Array(text.utf8), lineByteCount: lineByteCount, pieceByteCount: pieceByteCount)
  }

  init(_ text: [UInt8], lineByteCount: Int = 512, pieceByteCount: Int = .max) {
    let guarded = ConfigFixture.guardByteCount
    var memory = [UInt8](repeating: 0, count: ConfigParser.byteCount + 2 * guarded)
    var lines = [UInt8](repeating: 0, count: lineByteCount)
    memory.withUnsafeMutableBytes { memory in
      lines.withUnsafeMutableBytes { lines in
        var reader = LineReader(buffer: lines)
        var parser = ConfigParser(memory: memory.baseAddress! + guarded)
        let stream = text.last == 0x0a ? text : text + [0x0a]
        var offset = 0
        while offset < stream.count {
          let room = reader.makeRoom()
          let count = min(room.count, pieceByteCount, stream.count - offset)
          room.copyBytes(from: stream[offset..<(offset + count)])
          reader.didReceive(byteCount: count)
          offset += count
          take(&reader, &parser, memory)
        }
        end = parser.finish()
        if memory.contains(where: { $0 != 0 }) { isUnclean = true }
      }
    }
  }

  private func take(
    _ reader: inout LineReader, _ parser: inout ConfigParser,
    _ memory: UnsafeMutableRawBufferPointer
  ) {
    while true {
      let line = reader.next()
      if case .incomplete = line { return }
      parser.begin(line)
      while let statement = parser.next() {
        statements.append(statement)
        if parser.name.count > 0 { names.append(String(decoding: parser.name, as: UTF8.self)) }
        if case .failure = statement { failedKey = String(decoding: parser.key, as: UTF8.self) }
        if statement == .device(.privateKey) || statement == .peer(.presharedKey) {
          parser.withSecret {
            secrets.append(Array(UnsafeRawBufferPointer(start: $0, count: 32)))
          }
        }
      }
      // All is said, and forgotten.
      if memory.contains(where: { $0 != 0 }) { isUnclean = true }
    }
  }

  /// Why the file is refused; nil where it is not.
  var error: ConfigError? {
    if case .failure(let error)? = statements.last { return error }
    return end
  }

  var reason: ConfigError.Reason? { error?.reason }

  /// What stands under [Interface] with a private key before it.
  static func interface(_ lines: String) -> ConfigFixture {
    ConfigFixture("[Interface]\nPrivateKey = \(otherText)\n\(lines)\n")
  }

  /// What stands under [Peer] with a public key before it.
  static func peer(_ lines: String) -> ConfigFixture {
    ConfigFixture(
      "[Interface]\nPrivateKey = \(otherText)\n[Peer]\nPublicKey = \(keyText)\n\(lines)\n")
  }

  /// What the lines under test said, without what was before them.
  var said: [ConfigStatement] {
    Array(statements.drop { $0 != .device(.privateKey) }.dropFirst()).filter {
      $0 != .beginPeer && $0 != .peer(.publicKey(ConfigFixture.key))
    }
  }

  /// The key of `keyText`.
  static let key: Key = TextFixture.with(keyText) { text in
    withUnsafeTemporaryAllocation(byteCount: 32, alignment: 8) { bytes in
      precondition(Base64.decodeKey(text, into: bytes.baseAddress!))
      return Key(at: bytes.baseAddress!)
    }
  }
}
