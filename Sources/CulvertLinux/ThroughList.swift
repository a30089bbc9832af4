/// The configuration files of the tunnels around the innermost, the nearest first: NUL-terminated
/// paths, as long-lived as the process.
public struct ThroughList: Sendable {
  private static var capacity: Int { Hops.maximum - 1 }
  private var first: UInt = 0
  private var second: UInt = 0
  private var third: UInt = 0
  public private(set) var count = 0

  public init() {}

  public var isEmpty: Bool { count == 0 }

  /// False where there are as many as can be.
  public mutating func append(_ path: UnsafePointer<CChar>) -> Bool {
    guard count < ThroughList.capacity else { return false }
    let bits = UInt(bitPattern: path)
    switch count {
    case 0: first = bits
    case 1: second = bits
    default: third = bits
    }
    count += 1
    return true
  }

  /// Nil beyond the last.
  subscript(index: Int) -> UnsafePointer<CChar>? {
    switch index {
    case 0: UnsafePointer(bitPattern: first)
    case 1: UnsafePointer(bitPattern: second)
    case 2: UnsafePointer(bitPattern: third)
    default: nil
    }
  }
}
