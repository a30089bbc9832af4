import Testing

@testable import Culvert

@Suite struct LineReaderTests {
  /// The lines of `stream` through a buffer of `capacity`, arriving in pieces of the given sizes,
  /// over and over. "overlong" in angle brackets stands for such a line.
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
      // The last piece has no newline behind it.
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
