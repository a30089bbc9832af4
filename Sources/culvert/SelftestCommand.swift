import Culvert
import CulvertLinux

/// `culvert selftest`: known answers on this device, a line for each group, and one digest that is
/// the same on every board.
enum SelftestCommand {
  static func run() -> Int32 {
    let region: MemoryRegion
    do throws(SystemError) {
      region = try MemoryRegion(byteCount: Selftest.memoryByteCount)
    } catch {
      return Exit.fail(Exit.failure) { $0.append("there is no memory for the self-test") }
    }
    var isPassed = true
    var total: UInt64 = 0
    for raw in 0..<SelftestGroup.count {
      guard let group = SelftestGroup(rawValue: raw) else { break }
      let digest = Selftest.digest(of: group, memory: region.bytes)
      report(group, digest)
      isPassed = isPassed && digest == group.expected
      total = Selftest.chain(total, digest)
    }
    Output.writeLine(to: Output.standardOutput) {
      $0.append("digest ")
      $0.append(hex: total, width: 16)
    }
    return isPassed ? 0 : Exit.failure
  }

  private static func report(_ group: SelftestGroup, _ digest: UInt64) {
    Output.writeLine(to: Output.standardOutput) { line in
      let isRight = digest == group.expected
      line.append(isRight ? "ok " : "FAILED ")
      line.append(group.name)
      line.append(isRight ? " " : " got ")
      line.append(hex: digest, width: 16)
      if isRight { return }
      line.append(" expected ")
      line.append(hex: group.expected, width: 16)
    }
  }
}
