/// A few datagrams under way, oldest first, in fixed memory; when it is full the oldest is lost.
final class DoorMail {
  private static let capacity = 16
  static let datagramByteCount = 2048

  private let bytes = UnsafeMutableRawPointer.allocate(
    byteCount: DoorMail.capacity * DoorMail.datagramByteCount, alignment: 16)
  private let byteCounts = UnsafeMutablePointer<Int>.allocate(capacity: DoorMail.capacity)
  private var first = 0
  private(set) var count = 0

  init() {
    byteCounts.initialize(repeating: 0, count: DoorMail.capacity)
  }

  deinit {
    bytes.deallocate()
    byteCounts.deallocate()
  }

  func clear() {
    first = 0
    count = 0
  }

  /// Longer datagrams than the mail holds are lost.
  func push(_ datagram: UnsafeRawBufferPointer) {
    guard datagram.count <= DoorMail.datagramByteCount else { return }
    if count == DoorMail.capacity { drop() }
    let slot = (first + count) % DoorMail.capacity
    byteCounts[slot] = datagram.count
    if let start = datagram.baseAddress {
      place(slot).copyMemory(from: start, byteCount: datagram.count)
    }
    count += 1
  }

  /// Copies a datagram to `target`, which has room for the largest; its byte count.
  func copy(_ index: Int, into target: UnsafeMutableRawPointer) -> Int {
    let slot = (first + index) % DoorMail.capacity
    target.copyMemory(from: place(slot), byteCount: byteCounts[slot])
    return byteCounts[slot]
  }

  func drop() {
    guard count > 0 else { return }
    first = (first + 1) % DoorMail.capacity
    count -= 1
  }

  private func place(_ slot: Int) -> UnsafeMutableRawPointer {
    bytes + slot * DoorMail.datagramByteCount
  }
}
