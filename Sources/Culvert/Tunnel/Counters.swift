/// How often each verdict was given, since start.
public struct Counters: BitwiseCopyable {
  /// Room for every verdict; a test compares it with `Verdict.allCases`.
  static let capacity = 40
  private let counts: UnsafeMutablePointer<UInt64>

  init(carvingFrom arena: inout Arena) {
    counts = arena.carve(UInt64.self, count: Counters.capacity, owner: "counters").baseAddress!
  }

  @inline(__always)
  func add(_ verdict: Verdict) {
    counts[Int(verdict.rawValue)] &+= 1
  }

  public subscript(verdict: Verdict) -> UInt64 {
    counts[Int(verdict.rawValue)]
  }
}
