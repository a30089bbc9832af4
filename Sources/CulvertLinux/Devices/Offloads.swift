import CLinux
import Culvert

/// Work that the kernel can do for many packets at once. Each offload is used if the kernel
/// supports it, and can be disabled (`--offload`, `--no-offload`).
package struct Offloads: OptionSet, Sendable, BitwiseCopyable {
  package let rawValue: UInt8

  @inline(__always)
  package init(rawValue: UInt8) {
    self.rawValue = rawValue
  }

  /// Checksums of packets from and to the TUN (IFF_VNET_HDR, TUN_F_CSUM).
  package static var checksum: Offloads { Offloads(rawValue: 1) }
  /// TCP packets that Culvert cuts and joins: TUN_F_TSO4 and TUN_F_TSO6. Needs `checksum`.
  package static var tso: Offloads { Offloads(rawValue: 2) }
  /// The same for UDP: TUN_F_USO4 and TUN_F_USO6, Linux 6.2. Needs `checksum`.
  package static var uso: Offloads { Offloads(rawValue: 4) }
  /// Many datagrams in one send: UDP_SEGMENT, Linux 4.18.
  package static var gso: Offloads { Offloads(rawValue: 8) }
  /// Many datagrams in one receive: UDP_GRO, Linux 5.0.
  package static var gro: Offloads { Offloads(rawValue: 16) }
  /// recvmmsg(2) and sendmmsg(2), if the two above are missing.
  package static var mmsg: Offloads { Offloads(rawValue: 32) }

  package static var none: Offloads { Offloads(rawValue: 0) }
  package static var all: Offloads { Offloads(rawValue: 63) }

  /// These offloads; without `checksum`, also without those that need it.
  package var consistent: Offloads {
    contains(.checksum) ? self : subtracting(.tso).subtracting(.uso)
  }

  /// The offload at an index, with its name on the command line; nil beyond the last.
  package static func named(_ index: Int) -> (name: StaticString, offload: Offloads)? {
    switch index {
    case 0: ("checksum", .checksum)
    case 1: ("tso", .tso)
    case 2: ("uso", .uso)
    case 3: ("gso", .gso)
    case 4: ("gro", .gro)
    case 5: ("mmsg", .mmsg)
    default: nil
    }
  }
}

/// Tests at startup whether the sockets' offloads work: sends datagrams as segments of one buffer
/// and receives them in one buffer, between two sockets of this process over loopback. An emulator
/// or an old kernel may accept the options without implementing them.
struct OffloadProof: ~Copyable {
  private let memory: UnsafeMutableRawBufferPointer
  private let receiver: UDPSocket
  private let sender: UDPSocket
  private let path: Path
  /// The expected size of each received segment, in bytes.
  private let expected: Int

  /// Two whole segments and a shorter one.
  static let segmentByteCount = 600
  private static let byteCount = 1500
  /// Attempts to receive, with a pause of one millisecond after each failure. Loopback normally
  /// needs no second attempt.
  private static let attempts = 20

  /// Which of gso and gro fail the test; none if loopback cannot be used.
  ///
  /// - Parameter memory: at least 64 KB, overwritten.
  /// - Parameter expected: the expected size of each received segment. In tests, another number
  ///   simulates a kernel that cuts wrongly.
  static func refuted(
    _ offloads: Offloads, memory: UnsafeMutableRawBufferPointer,
    expecting expected: Int = segmentByteCount
  ) -> Offloads {
    guard offloads.contains(.gso) || offloads.contains(.gro) else { return .none }
    do throws(SystemError) {
      let proof = try OffloadProof(memory: memory, expected: expected)
      return proof.run(offloads)
    } catch {
      return .none
    }
  }

  private init(
    memory: UnsafeMutableRawBufferPointer, expected: Int
  ) throws(SystemError) {
    let receiver = try UDPSocket(.ipv4, port: 0, mark: 0, bufferByteCount: 1 << 16)
    let sender = try UDPSocket(.ipv4, port: 0, mark: 0, bufferByteCount: 1 << 16)
    let port = try receiver.port()
    self.memory = memory
    self.expected = expected
    self.receiver = receiver
    self.sender = sender
    path = Path(to: Endpoint(address: IPAddress(ipv4: 0x7f00_0001), port: port))
  }

  private borrowing func run(_ offloads: Offloads) -> Offloads {
    var refuted = Offloads.none
    // If not even a plain datagram arrives (no loopback, a firewall), the test proves nothing.
    guard sendPlain(), received(OffloadProof.byteCount) else { return .none }
    let usesGSO = offloads.contains(.gso) && sender.hasSegmentation
    if usesGSO, !sendSegments() || !received(expected) {
      refuted.insert(.gso)
      // Wrong segments that are still queued would spoil the test of receiving.
      drain()
    }
    guard offloads.contains(.gro), receiver.setGRO(true) else { return refuted }
    // Datagrams sent as segments should arrive together. If GSO cannot be used, a single datagram
    // at least shows that GRO leaves it intact.
    let isSegmented = usesGSO && refuted.isEmpty
    let isSent = isSegmented ? sendSegments() : sendPlain()
    let size = isSegmented ? expected : OffloadProof.byteCount
    if !isSent || !received(size) { refuted.insert(.gro) }
    return refuted
  }

  private borrowing func writePattern() -> UnsafeRawBufferPointer {
    let pattern = UnsafeMutableRawBufferPointer(rebasing: memory[..<OffloadProof.byteCount])
    for index in 0..<pattern.count { pattern[index] = UInt8(truncatingIfNeeded: index &* 167) }
    return UnsafeRawBufferPointer(pattern)
  }

  private borrowing func sendPlain() -> Bool { sender.send(writePattern(), to: path).result == 0 }

  private borrowing func sendSegments() -> Bool {
    sender.sendSegments(
      writePattern(), segmentByteCount: OffloadProof.segmentByteCount, to: path, trafficClass: 0)
      == 0
  }

  private borrowing func drain() {
    let room = UnsafeMutableRawBufferPointer(rebasing: memory[OffloadProof.byteCount...])
    for _ in 0..<OffloadProof.attempts where receiver.receive(into: room).byteCount < 0 { return }
  }

  /// Whether the whole pattern arrives in pieces of `segmentByteCount`.
  private borrowing func received(_ segmentByteCount: Int) -> Bool {
    var total = 0
    var attempts = 0
    while total < OffloadProof.byteCount, attempts < OffloadProof.attempts {
      let room = UnsafeMutableRawBufferPointer(rebasing: memory[OffloadProof.byteCount...])
      let datagram = receiver.receive(into: room)
      guard datagram.byteCount > 0 else {
        attempts += 1
        clinux_process_pause(1)
        continue
      }
      let size = datagram.segmentByteCount > 0 ? datagram.segmentByteCount : datagram.byteCount
      let isWhole =
        size == segmentByteCount
        || (datagram.byteCount < segmentByteCount
          && total + datagram.byteCount == OffloadProof.byteCount)
      guard isWhole, total + datagram.byteCount <= OffloadProof.byteCount else { return false }
      for index in 0..<datagram.byteCount where room[index] != memory[total + index] {
        return false
      }
      total += datagram.byteCount
    }
    return total == OffloadProof.byteCount
  }
}
