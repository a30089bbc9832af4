/// A verdict that a `Tally` counts.
public protocol CountedVerdict: RawRepresentable<UInt8>, Sendable, BitwiseCopyable {
  /// Raw values are 0..<count. (`CaseIterable` would create an array, which is an allocation.)
  static var count: UInt8 { get }
  /// The counter's name in the output that SIGUSR1 requests.
  var name: StaticString { get }
}

/// How often each verdict was given since start.
public struct Tally<Verdict: CountedVerdict>: BitwiseCopyable {
  private let counts: UnsafeMutablePointer<UInt64>

  init(carvingFrom arena: inout Arena, owner: StaticString) {
    counts = arena.carve(UInt64.self, count: Int(Verdict.count), owner: owner).baseAddress!
  }

  @inline(__always)
  func add(_ verdict: Verdict, _ count: UInt64 = 1) {
    counts[Int(verdict.rawValue)] &+= count
  }

  public subscript(verdict: Verdict) -> UInt64 {
    counts[Int(verdict.rawValue)]
  }
}
