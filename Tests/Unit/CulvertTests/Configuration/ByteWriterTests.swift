import Testing

@testable import Culvert

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
