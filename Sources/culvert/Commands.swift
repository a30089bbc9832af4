import Culvert
import CulvertLinux

/// `culvert bench`: what this device can do, and what throughput that promises.
enum BenchCommand {
  /// - Parameter seconds: for each measurement.
  static func run(seconds: Int) -> Int32 {
    let region: MemoryRegion
    do throws(SystemError) {
      region = try MemoryRegion(byteCount: Bench.memoryByteCount)
    } catch {
      return Exit.fail(Exit.failure) { $0.append("there is no memory for the measurements") }
    }
    measure(region.bytes, UInt64(seconds) * 1_000_000_000)
    return 0
  }

  private static func measure(_ memory: UnsafeMutableRawBufferPointer, _ duration: UInt64) {
    // What else the device does meanwhile is not to count.
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
            ? "ns to put 2 fragments together, last first" : "ns to put 2 fragments together"
          : isReversed
            ? "ns to put 7 fragments together, last first" : "ns to put 7 fragments together")
    }
    row(packets.outbound.perSecond(), "packets per second and worker from the TUN, sealed")
    row(packets.inbound.perSecond(), "packets per second and worker to the TUN, opened")
    promise(
      min(packets.outbound.perSecond(bytes), packets.inbound.perSecond(bytes)) * 8 / 1_000_000)
  }

  private static func promise(_ megabits: UInt64) {
    row(megabits, "Mbit/s one way, by a worker that has a CPU to itself, at most:")
    let text: StaticString = """
                  system calls and the kernel's network are not in it; with them
                  half of it is a good result

      """
    Output.write(
      UnsafeRawBufferPointer(start: text.utf8Start, count: text.utf8CodeUnitCount),
      to: Output.standardOutput)
  }

  private static func row(_ value: UInt64, _ what: StaticString) {
    BudgetCommand.row(value, what)
  }
}

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
  @inline(never)
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

/// `genkey`, `genpsk` and `pubkey`, as wg(8) has them.
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
      while count > 0, buffer[count - 1] <= 0x20 { count -= 1 }
      let text = UnsafeRawBufferPointer(rebasing: buffer[..<count])
      let secret = buffer.baseAddress! + 64
      let publicKey = secret + WireGuard.keyByteCount
      defer { Secret.wipe(buffer.baseAddress!, byteCount: buffer.count) }
      guard Base64.decodeKey(text, into: secret) else {
        return Exit.fail(Exit.failure) {
          $0.append("no key on standard input: culvert genkey | culvert pubkey")
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
      writer.append(0x0a)
      Output.write(writer.written, to: Output.standardOutput)
      Secret.wipe(buffer.baseAddress!, byteCount: buffer.count)
    }
  }
}

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

  @inline(never)
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
