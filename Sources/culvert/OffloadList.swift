import CulvertLinux

/// The value of `--offload`: names with commas between them.
enum OffloadList {
  /// Nil where a word is no name of an offload, and where the list is empty.
  static func parse(_ list: UnsafePointer<CChar>) -> Offloads? {
    if Argument.isText(list, "none") { return Offloads.none }
    if Argument.isText(list, "all") { return .all }
    var result = Offloads.none
    var start = list
    while true {
      guard let (offload, byteCount) = first(start) else { return nil }
      result.insert(offload)
      if start[byteCount] == 0 { return result }
      start += byteCount + 1
    }
  }

  /// The offload that a list begins with, and the bytes of its name.
  private static func first(
    _ list: UnsafePointer<CChar>
  ) -> (offload: Offloads, byteCount: Int)? {
    var index = 0
    while let (name, offload) = Offloads.named(index) {
      let byteCount = name.utf8CodeUnitCount
      if Argument.commonByteCount(list, name) == byteCount,
        list[byteCount] == 0 || list[byteCount] == 0x2c
      {
        return (offload, byteCount)
      }
      index += 1
    }
    return nil
  }
}
