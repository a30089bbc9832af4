/// The choice of a cipher for this CPU, made once at start.
extension TransportCipher {
  /// Bytes that `measured` needs: a packet and its output, with room around each.
  public static var scratchByteCount: Int {
    2 &* (headroom &+ longByteCount &+ WireGuard.tagByteCount &+ slack)
  }

  /// The fastest here: each candidate's least time for packets of 1420 and of 200 bytes, added up,
  /// four short ones to a long one. Where two are equal, the one that asks less of the CPU.
  ///
  /// Half a millisecond on a PC, 50 on the slowest boards. The output of no candidate depends on
  /// its choice, so a bad measurement costs speed and nothing else.
  ///
  /// - Parameters:
  ///   - scratch: at least `scratchByteCount` bytes, which are overwritten.
  ///   - now: a steady clock, in nanoseconds.
  public static func measured(
    scratch: UnsafeMutableRawBufferPointer, now: () -> UInt64
  ) -> TransportCipher {
    precondition(scratch.count >= scratchByteCount)
    let text = scratch.baseAddress! + headroom
    scratch.initializeMemory(as: UInt8.self, repeating: 0)
    var long = SIMD4<UInt64>(repeating: .max)
    var short = long
    for _ in 0..<roundCount {
      // In turn, so that a moment in which the CPU was busy hits no candidate alone.
      for index in 0..<candidateCount {
        let cipher = candidate(index)
        long[index] = min(
          long[index],
          cipher.time(text, byteCount: longByteCount, count: longCount, now: now))
        short[index] = min(
          short[index],
          cipher.time(text, byteCount: shortByteCount, count: shortCount, now: now))
      }
    }
    var best = 0
    for index in 1..<candidateCount where time(long, short, index) < time(long, short, best) {
      best = index
    }
    return candidate(best)
  }

  private static let candidateCount = 4
  private static let roundCount = 8
  /// Packets in a timing: enough for a clock that ticks in microseconds, and as many short ones as
  /// take about as long, or what disturbs the long ones would drown a difference in the others.
  private static let longCount = 4
  private static let shortCount = 16
  private static let longByteCount = 1420
  private static let shortByteCount = 200

  /// From the least asking.
  private static func candidate(_ index: Int) -> TransportCipher {
    switch index {
    case 0: .whole
    case 1: .composed(stride: 64)
    case 2: .composed(stride: 256)
    default: .composed(stride: 512)
    }
  }

  /// Saturates: a clock may be broken.
  private static func time(
    _ long: SIMD4<UInt64>, _ short: SIMD4<UInt64>, _ index: Int
  ) -> UInt64 {
    let (sum, overflows) = long[index].addingReportingOverflow(short[index])
    return overflows ? .max : sum
  }

  /// Nanoseconds for `count` packets of `byteCount` bytes at `text`, whose first 32 bytes serve as
  /// the key.
  @inline(never)
  private func time(
    _ text: UnsafeMutableRawPointer, byteCount: Int, count: Int, now: () -> UInt64
  ) -> UInt64 {
    let output =
      text + TransportCipher.longByteCount + WireGuard.tagByteCount + TransportCipher.slack
      + TransportCipher.headroom
    let start = now()
    for _ in 0..<count {
      seal(
        text, byteCount: byteCount, paddedByteCount: byteCount, to: output, counter: 0, key: text)
    }
    return now() &- start
  }
}
