import CulvertLinux

/// What a tunnel without an interface is called, in the log and in the state directory: as its
/// configuration file, so that it has one handshake timestamp with the interface of that name.
enum ForwardName {
  /// - Parameter hasHops: whether the names of the tunnels around it have to be made from it.
  static func make(of path: UnsafePointer<CChar>?, hasHops: Bool) -> InterfaceName {
    guard let path, let name = InterfaceName(stem(of: Argument.bytes(path))),
      !hasHops || name.hasRoomForHops
    else { return InterfaceName("forward")! }
    return name
  }

  /// The last component, without ".conf".
  private static func stem(of path: UnsafeRawBufferPointer) -> UnsafeRawBufferPointer {
    var start = path.count
    while start > 0, path[start - 1] != 0x2f { start -= 1 }
    let suffix: StaticString = ".conf"
    var end = path.count
    let cut = end - suffix.utf8CodeUnitCount
    if cut > start, isSuffix(suffix, of: path) { end = cut }
    return UnsafeRawBufferPointer(rebasing: path[start..<end])
  }

  private static func isSuffix(_ suffix: StaticString, of path: UnsafeRawBufferPointer) -> Bool {
    let start = path.count - suffix.utf8CodeUnitCount
    for index in 0..<suffix.utf8CodeUnitCount
    where path[start + index] != suffix.utf8Start[index] { return false }
    return true
  }
}
