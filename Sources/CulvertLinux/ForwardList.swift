import Culvert

/// The mappings of a command line, as long-lived as the process. Copies of a list share them.
///
/// They stand behind a pointer, since the options that hold them are handed on by value.
public struct ForwardList: @unchecked Sendable {
  /// Nil while there are none.
  private var mappings: UnsafeMutablePointer<ForwardMapping>?
  public private(set) var count = 0

  public static let capacity = Forwarder.mappingCapacity

  public init() {}

  public var isEmpty: Bool { count == 0 }

  /// False where there are as many as can be.
  public mutating func append(_ mapping: ForwardMapping) -> Bool {
    guard count < ForwardList.capacity else { return false }
    let mappings = mappings ?? .allocate(capacity: ForwardList.capacity)
    (mappings + count).initialize(to: mapping)
    self.mappings = mappings
    count += 1
    return true
  }

  subscript(index: Int) -> ForwardMapping {
    precondition(index >= 0 && index < count)
    return mappings![index]
  }
}
