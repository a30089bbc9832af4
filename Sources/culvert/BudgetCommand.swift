import Culvert
import CulvertLinux

/// `culvert budget`: what a set of limits takes, before it is taken.
enum BudgetCommand {
  static func run(_ options: Options) -> Int32 {
    let (budget, lockedByteCount) = Service.budget(
      options.limits, hops: options.hopCount, isForwarding: options.isForwarding)
    Output.writeLine(to: Output.standardOutput) {
      $0.append("profile ")
      $0.append(options.profile.name)
      $0.append(", bytes:")
    }
    for index in 0..<budget.count {
      let addend = budget[index]
      row(addend.byteCount, addend.owner)
    }
    row(budget.total, "total of the arena, mapped once at start")
    row(lockedByteCount, "of it locked in RAM (keys)")
    // The kernel takes twice what it is asked for.
    row(
      2 * (2 + UInt64(options.forwardCount)) * UInt64(options.socketBuffer),
      options.isForwarding
        ? "the kernel's, at most: what the tunnel's two sockets and those of --udp have received"
        : "the kernel's, at most: what two sockets have received")
    return 0
  }

  private static func row(_ byteCount: Int, _ owner: StaticString) {
    row(UInt64(byteCount), owner)
  }

  /// A number, right-aligned, and what it is; other commands print theirs so too.
  static func row(_ byteCount: UInt64, _ owner: StaticString) {
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
