import Glibc
import Testing

@testable import Culvert

/// Whole conversations, mutated from a seed: nothing traps, and the result does not depend on how
/// the bytes are split.
@Suite struct UAPIMutationTests {
  private static let hex = String(repeating: "0123456789abcdef", count: 4)
  private static let conversation = """
    get=1

    set=1
    private_key=\(hex)
    listen_port=51820
    fwmark=0xca6c
    replace_peers=true
    public_key=\(hex)
    update_only=true
    preshared_key=\(hex)
    protocol_version=1
    endpoint=[fe80::1%eth0]:51820
    persistent_keepalive_interval=25
    replace_allowed_ips=true
    allowed_ip=10.0.0.0/8
    allowed_ip=2001:db8::/32
    allowed_ip=-::ffff:10.1.2.3/128
    public_key=\(hex)
    remove=true
    endpoint=192.0.2.1:51820

    set=1
    fwmark=x
    listen_port=1

    get=1


    """

  /// The parsed lines of the stream, which arrives in pieces of these sizes, repeated.
  private func results(_ stream: [UInt8], pieces: [Int]) -> [UAPILine] {
    var results: [UAPILine] = []
    run(stream, pieces: pieces) { results.append($0) }
    return results
  }

  private func run(_ stream: [UInt8], pieces: [Int], _ body: (UAPILine) -> Void) {
    withUnsafeTemporaryAllocation(byteCount: 32 + 128, alignment: 8) { memory in
      var reader = LineReader(buffer: UnsafeMutableRawBufferPointer(rebasing: memory[32...]))
      var parser = UAPIParser(secret: memory.baseAddress!)
      var offset = 0
      var turn = 0
      while offset < stream.count {
        let room = reader.makeRoom()
        let count = min(room.count, pieces[turn % pieces.count], stream.count - offset)
        stream.withUnsafeBytes { stream in
          room.baseAddress!.copyMemory(from: stream.baseAddress! + offset, byteCount: count)
        }
        reader.didReceive(byteCount: count)
        offset += count
        turn += 1
        while true {
          let line = reader.next()
          if case .incomplete = line { break }
          body(parser.parse(line))
        }
      }
    }
  }

  @Test func aSplitAtEveryByteGivesTheSameResult() {
    let stream = Array(Self.conversation.utf8)
    let expected = results(stream, pieces: [.max])
    #expect(expected.count == 27)
    #expect(expected[0] == .beginGet && expected[1] == .endGet && expected[26] == .endGet)
    #expect(expected[20] == .endSet && expected[24] == .endFailed(.invalid))
    for first in 1..<stream.count {
      #expect(results(stream, pieces: [first, .max]) == expected)
    }
    for size in 1..<200 { #expect(results(stream, pieces: [size]) == expected) }
  }

  private func mutated(
    _ stream: [UInt8], using generator: inout TextFixture.Generator
  ) -> [UInt8] {
    let frequent = Array("\n\n\n\r=:./%[]-0x19af\u{0}".utf8)
    var stream = stream
    for _ in 0..<Int.random(in: 1...12, using: &generator) where !stream.isEmpty {
      let place = Int.random(in: 0..<stream.count, using: &generator)
      switch Int.random(in: 0..<6, using: &generator) {
      case 0: stream[place] = frequent.randomElement(using: &generator)!
      case 1: stream[place] = UInt8.random(in: .min ... .max, using: &generator)
      case 2: stream.insert(frequent.randomElement(using: &generator)!, at: place)
      case 3: stream.remove(at: place)
      case 4:
        let end = min(stream.count, place + Int.random(in: 0..<40, using: &generator))
        stream.removeSubrange(place..<end)
      default:
        let end = min(stream.count, place + Int.random(in: 0..<90, using: &generator))
        let piece = Array(stream[place..<end])
        stream.insert(contentsOf: piece, at: Int.random(in: 0...stream.count, using: &generator))
      }
    }
    return stream
  }

  @Test func mutatedLinesNeverTrapAndRequestsStayWhole() {
    let stream = Array(Self.conversation.utf8)
    var generator = TextFixture.Generator(seed: 5)
    var lines = 0
    var failures = 0
    while lines < 200_000 {
      let mutant = mutated(stream, using: &generator)
      var isOpen = false
      var hasFailed = false
      var isSound = true
      run(mutant, pieces: [.max]) { line in
        lines += 1
        switch line {
        case .beginGet, .beginSet:
          isSound = isSound && !isOpen && !hasFailed
          isOpen = true
        case .device, .peer: isSound = isSound && isOpen && !hasFailed
        case .failure:
          isSound = isSound && !hasFailed
          hasFailed = true
          failures += 1
        case .skipped: isSound = isSound && (hasFailed || !isOpen)
        case .endGet, .endSet:
          isSound = isSound && isOpen && !hasFailed
          isOpen = false
        case .endFailed:
          isSound = isSound && hasFailed
          isOpen = false
          hasFailed = false
        }
      }
      #expect(isSound)
      if lines % 64 == 0 {
        #expect(results(mutant, pieces: [1, 7, 130, 2]) == results(mutant, pieces: [.max]))
      }
    }
    #expect(failures > 5000)
  }

}
