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
