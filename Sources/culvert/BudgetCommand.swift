import Culvert
import CulvertLinux

/// `culvert budget`: what a set of limits takes, before it is taken.
enum BudgetCommand {
  static func run(_ options: Options) -> Int32 {
    var arena = Arena.measuring
    _ = Driver.Memory(carvingFrom: &arena, limits: options.limits)
    Output.writeLine(to: Output.standardOutput) {
      $0.append("profile ")
      $0.append(options.profile.name)
      $0.append(", bytes:")
    }
    for index in 0..<arena.budget.count {
      let addend = arena.budget[index]
      row(addend.byteCount, addend.owner)
    }
    row(arena.budget.total, "total of the arena, mapped once at start")
    row(arena.secretByteCount, "of it locked in RAM (keys)")
    row(4 * options.socketBuffer, "the kernel's, at most: buffers of two sockets")
    return 0
  }

  private static func row(_ byteCount: Int, _ owner: StaticString) {
    Output.writeLine(to: Output.standardOutput) { line in
      var width = 10
      var rest = byteCount
      while rest >= 10 {
        rest /= 10
        width -= 1
      }
      for _ in 0..<max(0, width) { line.append(" ") }
      line.append(decimal: byteCount)
      line.append("  ")
      line.append(owner)
    }
  }
}
