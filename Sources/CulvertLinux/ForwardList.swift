import Culvert

/// The mappings of a command line.
public struct ForwardList: Sendable {
  private var mappings = InlineArray<32, ForwardMapping>(
    repeating: ForwardMapping(local: .nowhere, target: .nowhere))
  public private(set) var count = 0

  public static let capacity = Forwarder.mappingCapacity

  public init() {}

  public var isEmpty: Bool { count == 0 }

  /// False where there are as many as can be.
  public mutating func append(_ mapping: ForwardMapping) -> Bool {
    guard count < ForwardList.capacity else { return false }
    mappings[count] = mapping
    count += 1
    return true
  }

  subscript(index: Int) -> ForwardMapping {
    precondition(index >= 0 && index < count)
    return mappings[index]
  }
}

extension Endpoint {
  fileprivate static var nowhere: Endpoint { Endpoint(address: IPAddress(ipv4: 0), port: 0) }
}
