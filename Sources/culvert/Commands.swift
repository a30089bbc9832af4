import Culvert
import CulvertLinux

/// `culvert bench`: measures this device and estimates its throughput.
enum BenchCommand {
  /// - Parameter seconds: the duration of each measurement.
  static func run(seconds: Int) -> Int32 {
    let region: MemoryRegion
    do throws(SystemError) {
      region = try MemoryRegion(byteCount: Bench.memoryByteCount)
    } catch {
      return Exit.fail(Exit.failure) { $0.append("cannot map the memory for the measurements") }
    }
    measure(region.bytes, UInt64(seconds) * 1_000_000_000)
    return 0
  }

  private static func measure(_ memory: UnsafeMutableRawBufferPointer, _ duration: UInt64) {
    // CPU time of this thread: other processes must not affect the result.
    let now: Bench.Clock = { Clock.threadTime() }
    let packets = Bench.packets(memory: memory, duration: duration, now: now)
    let bytes = UInt64(Bench.packetByteCount)
    // Megabytes of 10^6 bytes.
    row(packets.seal.perSecond(bytes) / 1_000_000, "MB/s sealed, packets of 1420 bytes")
    row(packets.open.perSecond(bytes) / 1_000_000, "MB/s opened")
    row(
      Bench.x25519(memory: memory, duration: duration, now: now).perSecond(),
      "X25519 products per second")
    row(
      Bench.handshakes(memory: memory, duration: duration, now: now).perSecond(),
      "handshakes answered per second")
    for index in 0..<4 {
      let isReversed = index & 1 != 0
      let fragments = index < 2 ? 2 : 7
      let measurement = Bench.reassembly(
        fragments: fragments, isReversed: isReversed, memory: memory, duration: duration, now: now)
      let rate = measurement.perSecond()
      row(
        rate == 0 ? 0 : 1_000_000_000 / rate,
        index < 2
          ? isReversed
            ? "ns to reassemble 2 fragments, last first" : "ns to reassemble 2 fragments"
          : isReversed
            ? "ns to reassemble 7 fragments, last first" : "ns to reassemble 7 fragments")
    }
    row(packets.outbound.perSecond(), "packets per second and worker sealed, from the TUN")
    row(packets.inbound.perSecond(), "packets per second and worker opened, to the TUN")
    promise(
      min(packets.outbound.perSecond(bytes), packets.inbound.perSecond(bytes)) * 8 / 1_000_000)
  }

  private static func promise(_ megabits: UInt64) {
    row(megabits, "Mbit/s one way, at most, for a worker with a CPU of its own:")
    let text: StaticString = """
                  system calls and the kernel's network stack are not included;
                  expect about half of it in practice

      """
    Output.write(
      UnsafeRawBufferPointer(start: text.utf8Start, count: text.utf8CodeUnitCount),
      to: Output.standardOutput)
  }

  private static func row(_ value: UInt64, _ description: StaticString) {
    BudgetCommand.row(value, description)
  }
}

/// `culvert budget`: the memory that a set of limits needs, without allocating it.
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
    row(budget.total, "total of the arena, mapped once at startup")
    row(lockedByteCount, "of this locked in RAM (keys)")
    // The kernel doubles the buffer size that a socket requests.
    row(
      2 * (2 + UInt64(options.forwardCount)) * UInt64(options.socketBuffer),
      options.isForwarding
        ? "kernel memory at most: receive buffers of the tunnel's two sockets and of those of --udp"
        : "kernel memory at most: receive buffers of two sockets")
    return 0
  }

  private static func row(_ byteCount: Int, _ owner: StaticString) {
    row(UInt64(byteCount), owner)
  }

  /// Prints a right-aligned number and its description.
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

/// `genkey`, `genpsk` and `pubkey`, compatible with wg(8).
enum KeyCommand {
  private static let textByteCount = 44

  static func generate(clamped: Bool) -> Int32 {
    withUnsafeTemporaryAllocation(byteCount: WireGuard.keyByteCount, alignment: 8) { key in
      var entropy = Entropy.sodium
      entropy.fill(key.baseAddress!, byteCount: key.count)
      if clamped { X25519.clamp(key.baseAddress!) }
      printKey(key.baseAddress!)
      Secret.wipe(key.baseAddress!, byteCount: key.count)
      return 0
    }
  }

  static func derivePublic() -> Int32 {
    withUnsafeTemporaryAllocation(byteCount: 128, alignment: 8) { buffer in
      var count = Output.readInput(
        into: UnsafeMutableRawBufferPointer(rebasing: buffer[..<64]))
      while count > 0, buffer[count - 1] <= UInt8(ascii: " ") { count -= 1 }
      let text = UnsafeRawBufferPointer(rebasing: buffer[..<count])
      let secret = buffer.baseAddress! + 64
      let publicKey = secret + WireGuard.keyByteCount
      defer { Secret.wipe(buffer.baseAddress!, byteCount: buffer.count) }
      guard Base64.decodeKey(text, into: secret) else {
        return Exit.fail(Exit.failure) {
          $0.append("no valid key on standard input; usage: culvert genkey | culvert pubkey")
        }
      }
      X25519.clamp(secret)
      X25519.publicKey(into: publicKey, secret: secret)
      printKey(publicKey)
      return 0
    }
  }

  private static func printKey(_ key: UnsafeRawPointer) {
    withUnsafeTemporaryAllocation(byteCount: textByteCount + 1, alignment: 1) { buffer in
      var writer = ByteWriter(buffer)
      Base64.appendKey(key, to: &writer)
      writer.append(UInt8(ascii: "\n"))
      Output.write(writer.written, to: Output.standardOutput)
      Secret.wipe(buffer.baseAddress!, byteCount: buffer.count)
    }
  }
}

/// `culvert selftest`: verifies the build on the device. Prints one line per group of known
/// answers, and one digest that is the same on every board.
enum SelftestCommand {
  static func run() -> Int32 {
    let region: MemoryRegion
    do throws(SystemError) {
      region = try MemoryRegion(byteCount: Selftest.memoryByteCount)
    } catch {
      return Exit.fail(Exit.failure) { $0.append("cannot map the memory for the self-test") }
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
