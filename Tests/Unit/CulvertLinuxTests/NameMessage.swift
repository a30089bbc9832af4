/// DNS messages for tests, put together byte by byte.
struct NameMessage {
  var id: UInt16
  /// Response, recursion desired and available.
  var flags: UInt16 = 0x8180
  var questions: [[UInt8]] = []
  var answers: [[UInt8]] = []
  /// What stands in the header, where that is a lie.
  var questionCount: Int?
  var answerCount: Int?
  var authorityCount = 0

  /// A question's name behind the header, for owners of records.
  static let pointerToQuestion: [UInt8] = [0xc0, 12]

  var bytes: [UInt8] {
    let counts = [
      questionCount ?? questions.count, answerCount ?? answers.count, authorityCount, 0,
    ]
    return ([id, flags] + counts.map { UInt16($0) }).flatMap(NameMessage.word)
      + questions.flatMap { $0 } + answers.flatMap { $0 }
  }

  static func word(_ value: UInt16) -> [UInt8] { [UInt8(value >> 8), UInt8(value & 255)] }

  /// Labels with their lengths, and the root.
  static func name(_ text: String) -> [UInt8] {
    text.split(separator: ".").flatMap { [UInt8($0.utf8.count)] + Array($0.utf8) } + [0]
  }

  static func question(_ name: String, type: UInt16, kind: UInt16 = 1) -> [UInt8] {
    self.name(name) + word(type) + word(kind)
  }

  static func record(
    _ owner: [UInt8] = pointerToQuestion, type: UInt16, kind: UInt16 = 1, _ data: [UInt8],
    byteCount: Int? = nil
  ) -> [UInt8] {
    owner + word(type) + word(kind) + [0, 0, 0, 60]
      + word(UInt16(byteCount ?? data.count)) + data
  }
}
