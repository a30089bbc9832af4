import Testing

@testable import Culvert

@Suite struct LineReaderTests {
  /// The lines of `stream` through a buffer of `capacity`, arriving in pieces of the given sizes,
  /// repeated. <overlong> stands for an overlong line.
  private func lines(_ stream: [UInt8], capacity: Int, pieces: [Int]) -> [String] {
    var memory = [UInt8](repeating: 0, count: capacity)
    var lines: [String] = []
    memory.withUnsafeMutableBytes { memory in
      var reader = LineReader(buffer: memory)
      var offset = 0
      var turn = 0
      while offset < stream.count {
        let room = reader.makeRoom()
        #expect(room.count > 0)
        let count = min(room.count, pieces[turn % pieces.count], stream.count - offset)
        room.copyBytes(from: stream[offset..<(offset + count)])
        reader.didReceive(byteCount: count)
        offset += count
        turn += 1
        read: while true {
          switch reader.next() {
          case .line(let text): lines.append(String(decoding: text, as: UTF8.self))
          case .overlong: lines.append("<overlong>")
          case .incomplete: break read
          }
        }
      }
    }
    return lines
  }

  private let stream = Array(
    "get=1\n\nset=1\na=0123456\nb=01234567\nc=012345678901234567890\n\nx".utf8)
  private let expected = ["get=1", "", "set=1", "a=0123456", "<overlong>", "<overlong>", ""]

  @Test func aSplitAnywhereGivesTheSameLines() {
    for first in 1..<stream.count {
      #expect(lines(stream, capacity: 10, pieces: [first, .max]) == expected)
    }
  }

  @Test func piecesOfEverySizeGiveTheSameLines() {
    for size in 1...stream.count {
      #expect(lines(stream, capacity: 10, pieces: [size]) == expected)
    }
    #expect(lines(stream, capacity: 10, pieces: [1, 2, 3, 5, 8]) == expected)
  }

  @Test func randomStreamsAgainstASplit() {
    var generator = TextFixture.Generator(seed: 4)
    for _ in 0..<3000 {
      let length = Int.random(in: 0..<80, using: &generator)
      let alphabet: [UInt8] = [0x0a, 0x61, 0x62, 0]
      let stream = (0..<length).map { _ in alphabet.randomElement(using: &generator)! }
      let capacity = Int.random(in: 1...12, using: &generator)
      // The last piece does not end with a newline.
      let model = stream.split(separator: 0x0a, omittingEmptySubsequences: false).dropLast().map {
        $0.count < capacity ? String(decoding: $0, as: UTF8.self) : "<overlong>"
      }
      let pieces = (0..<5).map { _ in Int.random(in: 1...9, using: &generator) }
      #expect(lines(stream, capacity: capacity, pieces: pieces) == model)
    }
  }

  @Test func whatIsDoneWithIsWiped() {
    var memory = [UInt8](repeating: 0, count: 32)
    memory.withUnsafeMutableBytes { memory in
      var reader = LineReader(buffer: memory)
      var room = reader.makeRoom()
      room.copyBytes(from: Array("private_key=5ec3e7\nhalf".utf8))
      reader.didReceive(byteCount: 23)
      guard case .line = reader.next(), case .incomplete = reader.next() else {
        Issue.record("no line")
        return
      }
      room = reader.makeRoom()
      #expect(Array(memory) == Array("half".utf8) + [UInt8](repeating: 0, count: 28))
      reader.reset()
      #expect(memory.allSatisfy { $0 == 0 })
      #expect(reader.makeRoom().count == 32)
    }
  }

  @Test func moreThanTheRoomIsNotTaken() {
    var memory = [UInt8](repeating: 0x0a, count: 4)
    memory.withUnsafeMutableBytes { memory in
      var reader = LineReader(buffer: memory)
      reader.didReceive(byteCount: -1)
      reader.didReceive(byteCount: .max)
      var lines = 0
      while case .line(let text) = reader.next() {
        #expect(text.isEmpty)
        lines += 1
      }
      #expect(lines == 4)
    }
  }
}

@Suite struct ByteWriterTests {
  @Test func decimals() {
    for value in [0, 1, 9, 10, 99, 100, 65535, 4_294_967_296, UInt64.max / 10, .max - 1, .max] {
      #expect(TextFixture.written { $0.append(decimal: value) } == String(value))
    }
  }

  @Test func overflowIsRememberedAndNothingFollows() {
    var memory = [UInt8](repeating: 0xaa, count: 9)
    memory.withUnsafeMutableBytes { memory in
      var writer = ByteWriter(UnsafeMutableRawBufferPointer(rebasing: memory[0..<8]))
      writer.append("12345")
      #expect(writer.hasOverflowed == false)
      writer.append("6789")
      #expect(writer.hasOverflowed == true)
      writer.append(0x21)
      #expect(writer.count == 5)
      writer.rewind(to: 3)
      #expect(writer.count == 3 && !writer.hasOverflowed)
      #expect(Array(memory) == Array("123".utf8) + [0, 0, 0xaa, 0xaa, 0xaa, 0xaa])
      writer.append("45678")
      #expect(writer.count == 8 && !writer.hasOverflowed)
      writer.append("")
      #expect(writer.hasOverflowed == false)
      writer.rewind()
      #expect(writer.count == 0)
      #expect(Array(memory) == [0, 0, 0, 0, 0, 0, 0, 0, 0xaa])
    }
  }

  @Test func anEmptyBufferOnlyOverflows() {
    var writer = ByteWriter(UnsafeMutableRawBufferPointer(start: nil, count: 0))
    writer.rewind()
    writer.append(decimal: UInt64.max)
    var byte: UInt8 = 7
    writer.append(hex: &byte, byteCount: .max)
    #expect(writer.hasOverflowed && writer.count == 0)
  }

  @Test func hexadecimal() {
    let bytes: [UInt8] = [0x00, 0x9a, 0xf0, 0xff]
    let text = TextFixture.written { writer in
      bytes.withUnsafeBytes { writer.append(hex: $0.baseAddress!, byteCount: 4) }
    }
    #expect(text == "009af0ff")
  }
}

/// Shared by the tests of text: bytes from strings, strings from writers, and a seeded generator.
enum TextFixture {
  static func with<Result>(
    _ text: String, _ body: (UnsafeRawBufferPointer) throws -> Result
  ) rethrows -> Result {
    try Array(text.utf8).withUnsafeBytes(body)
  }

  /// The text that `body` writes into a buffer of `capacity` bytes.
  static func written(capacity: Int = 1024, _ body: (inout ByteWriter) -> Void) -> String {
    var memory = [UInt8](repeating: 0xaa, count: capacity)
    return memory.withUnsafeMutableBytes { buffer in
      var writer = ByteWriter(buffer)
      body(&writer)
      return String(decoding: writer.written, as: UTF8.self)
    }
  }

  static func text(_ address: IPAddress) -> String {
    written { AddressText.append(address, to: &$0) }
  }

  /// SplitMix64: the same seed gives the same numbers on every platform.
  struct Generator: RandomNumberGenerator {
    var state: UInt64

    init(seed: UInt64) { state = seed }

    mutating func next() -> UInt64 {
      state &+= 0x9e37_79b9_7f4a_7c15
      var bits = state
      bits = (bits ^ (bits >> 30)) &* 0xbf58_476d_1ce4_e5b9
      bits = (bits ^ (bits >> 27)) &* 0x94d0_49bb_1331_11eb
      return bits ^ (bits >> 31)
    }
  }
}
