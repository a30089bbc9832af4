/// A sum whose every addend names its owner: the ledger that `culvert budget` prints. It counts
/// what is pinned, not what is useful.
public struct Budget: Sendable {
  public struct Addend: Sendable {
    public let owner: StaticString
    public fileprivate(set) var byteCount: Int
  }

  /// More than the owners there are; a test prints all profiles.
  static let capacity = 40
  private var addends = InlineArray<40, Addend>(repeating: Addend(owner: "", byteCount: 0))
  public private(set) var count = 0

  public init() {}

  public subscript(index: Int) -> Addend {
    precondition(index >= 0 && index < count)
    return addends[index]
  }

  /// Adds to the ledger: one line for each owner.
  public mutating func add(_ owner: StaticString, byteCount: Int) {
    for index in 0..<count where addends[index].owner.utf8Start == owner.utf8Start {
      addends[index].byteCount += byteCount
      return
    }
    precondition(count < Budget.capacity, "more owners than lines in the ledger")
    addends[count] = Addend(owner: owner, byteCount: byteCount)
    count += 1
  }

  /// Bytes of all addends.
  public var total: Int {
    var sum = 0
    for index in 0..<count { sum += addends[index].byteCount }
    return sum
  }
}
