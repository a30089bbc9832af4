/// How often each verdict was given, since start.
public struct Counters: BitwiseCopyable {
  private let counts: UnsafeMutablePointer<UInt64>

  init(carvingFrom arena: inout Arena) {
    counts = arena.carve(UInt64.self, count: Int(Verdict.count), owner: "counters").baseAddress!
  }

  @inline(__always)
  func add(_ verdict: Verdict, _ count: UInt64 = 1) {
    counts[Int(verdict.rawValue)] &+= count
  }

  public subscript(verdict: Verdict) -> UInt64 {
    counts[Int(verdict.rawValue)]
  }
}
