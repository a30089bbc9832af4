import CulvertLinux

/// Words that are commands, of Culvert or of the programs that its users know. The first word of a
/// command line that is one of them, or nearly, is not the name of an interface: `culvert show` and
/// `culvert genkye` are mistakes (R69). `culvert -- show` creates an interface of that name.
///
/// A name that ends in a digit (`wg0`) is never taken for a command. Short words only match with a
/// letter too many, one missing, or two exchanged, because names like "beach" are near "bench".
struct CommandWord {
  enum Owner {
    case culvert
    case wg
    case wgQuick
    /// A command of other programs of this kind.
    case nobody
  }

  let text: StaticString
  let owner: Owner

  /// The word at this index; nil beyond the last.
  private static func word(_ index: Int) -> CommandWord? {
    let (text, owner): (StaticString, Owner)
    switch index {
    case 0: (text, owner) = ("forward", .culvert)
    case 1: (text, owner) = ("genkey", .culvert)
    case 2: (text, owner) = ("genpsk", .culvert)
    case 3: (text, owner) = ("pubkey", .culvert)
    case 4: (text, owner) = ("budget", .culvert)
    case 5: (text, owner) = ("selftest", .culvert)
    case 6: (text, owner) = ("bench", .culvert)
    case 7: (text, owner) = ("version", .culvert)
    case 8: (text, owner) = ("help", .culvert)
    case 9: (text, owner) = ("show", .wg)
    case 10: (text, owner) = ("showconf", .wg)
    case 11: (text, owner) = ("set", .wg)
    case 12: (text, owner) = ("setconf", .wg)
    case 13: (text, owner) = ("addconf", .wg)
    case 14: (text, owner) = ("syncconf", .wg)
    case 15: (text, owner) = ("up", .wgQuick)
    case 16: (text, owner) = ("down", .wgQuick)
    case 17: (text, owner) = ("save", .wgQuick)
    case 18: (text, owner) = ("strip", .wgQuick)
    case 19: (text, owner) = ("reload", .nobody)
    case 20: (text, owner) = ("status", .nobody)
    case 21: (text, owner) = ("check", .nobody)
    case 22: (text, owner) = ("doctor", .nobody)
    case 23: (text, owner) = ("metrics", .nobody)
    case 24: (text, owner) = ("peer", .nobody)
    default: return nil
    }
    return CommandWord(text: text, owner: owner)
  }

  /// The command that `argument` is, or else the one that it nearly is.
  static func find(_ argument: UnsafePointer<CChar>) -> (word: CommandWord, isExact: Bool)? {
    let bytes = Argument.bytes(argument)
    guard let last = bytes.last, last < UInt8(ascii: "0") || last > UInt8(ascii: "9") else {
      return nil
    }
    var nearest: CommandWord?
    var index = 0
    while let word = word(index) {
      index += 1
      if Argument.isText(argument, word.text) { return (word, true) }
      // A command of ours is the likeliest.
      if nearest == nil, word.isNear(bytes) { nearest = word }
    }
    return nearest.map { ($0, false) }
  }

  private var bytes: UnsafeRawBufferPointer {
    UnsafeRawBufferPointer(start: text.utf8Start, count: text.utf8CodeUnitCount)
  }

  private func isNear(_ word: UnsafeRawBufferPointer) -> Bool {
    let command = bytes
    guard command.count >= 4, word.count >= 2 else { return false }
    // The first letter is hardly ever wrong, but it may be exchanged with the second.
    guard
      CommandWord.isSame(word[0], command[0])
        || CommandWord.isSame(word[0], command[1]) && CommandWord.isSame(word[1], command[0])
    else { return false }
    let isLong = command.count >= 6
    return CommandWord.isWithin(
      isLong ? 2 : 1, word, command, allowsReplacement: isLong)
  }

  /// Whether so many edits turn one text into the other: a letter inserted, left out or replaced,
  /// or two neighbours exchanged (optimal string alignment). `edits` is at most 2, which bounds the
  /// recursion.
  private static func isWithin(
    _ edits: Int, _ left: UnsafeRawBufferPointer, _ right: UnsafeRawBufferPointer,
    allowsReplacement: Bool
  ) -> Bool {
    var start = 0
    while start < left.count, start < right.count, isSame(left[start], right[start]) { start += 1 }
    let left = UnsafeRawBufferPointer(rebasing: left[start...])
    let right = UnsafeRawBufferPointer(rebasing: right[start...])
    if left.count == 0 || right.count == 0 { return left.count + right.count <= edits }
    if edits == 0 { return false }
    func isWithinAfter(_ first: Int, _ second: Int) -> Bool {
      isWithin(
        edits - 1, UnsafeRawBufferPointer(rebasing: left[first...]),
        UnsafeRawBufferPointer(rebasing: right[second...]), allowsReplacement: allowsReplacement)
    }
    if isWithinAfter(1, 0) || isWithinAfter(0, 1) { return true }
    if allowsReplacement, isWithinAfter(1, 1) { return true }
    return left.count > 1 && right.count > 1 && isSame(left[0], right[1])
      && isSame(left[1], right[0]) && isWithinAfter(2, 2)
  }

  /// Whether a byte is this small letter, or its capital.
  private static func isSame(_ byte: UInt8, _ letter: UInt8) -> Bool {
    byte == letter || byte == letter - (UInt8(ascii: "a") - UInt8(ascii: "A"))
  }
}
