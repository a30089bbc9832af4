/// How often each verdict on fragments was given, since start.
public struct FragmentCounters: BitwiseCopyable {
  private let counts: UnsafeMutablePointer<UInt64>

  init(carvingFrom arena: inout Arena) {
    counts =
      arena.carve(UInt64.self, count: Int(FragmentVerdict.count), owner: Reassembler.tablesOwner)
      .baseAddress!
  }

  @inline(__always)
  func add(_ verdict: FragmentVerdict) {
    counts[Int(verdict.rawValue)] &+= 1
  }

  public subscript(verdict: FragmentVerdict) -> UInt64 {
    counts[Int(verdict.rawValue)]
  }
}
