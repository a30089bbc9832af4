import Foundation

/// Bytes in hex, and the larger vector sets that lie beside the repository. Where the sets are
/// absent, the tests that read them are skipped by name; the RFCs' own cases are in the tests.
enum TestVectors {
  /// `text` in hex; blanks and line ends between the digits are ignored.
  static func bytes(_ text: String) -> [UInt8] {
    let digits = text.filter { !$0.isWhitespace }
    precondition(digits.count % 2 == 0)
    var bytes: [UInt8] = []
    var index = digits.startIndex
    while index < digits.endIndex {
      let next = digits.index(index, offsetBy: 2)
      bytes.append(UInt8(digits[index..<next], radix: 16)!)
      index = next
    }
    return bytes
  }

  /// `start`, `start` + `step`, and so on, `count` bytes.
  static func pattern(_ count: Int, start: UInt8, step: UInt8 = 7) -> [UInt8] {
    (0..<count).map { UInt8(truncatingIfNeeded: $0) &* step &+ start }
  }

  /// A set's bytes, from `CULVERT_VECTORS` or from ../shared/vectors beside the repository.
  static func file(_ name: String) -> Data? {
    if let folder = ProcessInfo.processInfo.environment["CULVERT_VECTORS"] {
      return FileManager.default.contents(atPath: folder + "/" + name)
    }
    var root = URL(fileURLWithPath: #filePath)
    for _ in 0..<4 { root.deleteLastPathComponent() }
    return FileManager.default.contents(
      atPath: root.deletingLastPathComponent().path + "/shared/vectors/" + name)
  }

  static func exists(_ name: String) -> Bool { file(name) != nil }

  /// The cases of a Wycheproof set that `matches` accepts by its group, as name and value pairs.
  static func wycheproof(
    _ name: String, where matches: ([String: Any]) -> Bool = { _ in true }
  ) throws -> [[String: Any]] {
    let json = try JSONSerialization.jsonObject(with: file(name)!) as! [String: Any]
    return (json["testGroups"] as! [[String: Any]]).filter(matches)
      .flatMap { $0["tests"] as! [[String: Any]] }
  }
}

extension [String: Any] {
  /// The bytes of a field in hex.
  func hex(_ name: String) -> [UInt8] { TestVectors.bytes(self[name] as! String) }

  func text(_ name: String) -> String { self[name] as! String }
}
