/// A handshake message in the ring between the inbound lane and the control path: a slot that
/// holds the message, its length and the path that it came on.
struct HandshakeEntry {
  private static let pathOffset = 0
  private static let byteCountOffset = 96
  private static let messageOffset = 104

  private let bytes: UnsafeMutableRawPointer

  init(in slot: borrowing Slot) {
    bytes = slot.bytes.baseAddress!
  }

  func write(_ message: UnsafeRawPointer, byteCount: Int, from path: Path) {
    (bytes + HandshakeEntry.pathOffset).storeBytes(of: path, as: Path.self)
    (bytes + HandshakeEntry.byteCountOffset).storeBytes(of: byteCount, as: Int.self)
    self.message.copyMemory(from: message, byteCount: byteCount)
  }

  var path: Path { (bytes + HandshakeEntry.pathOffset).load(as: Path.self) }
  var byteCount: Int { (bytes + HandshakeEntry.byteCountOffset).load(as: Int.self) }
  var message: UnsafeMutableRawPointer { bytes + HandshakeEntry.messageOffset }
}
