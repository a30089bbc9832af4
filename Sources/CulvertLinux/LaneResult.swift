/// How often a lane's descriptors failed, for the log; the packets themselves are counted by the
/// tunnel.
struct LaneResult {
  /// The descriptor has nothing more; otherwise the batch was full and there may be.
  var isDrained = true
  /// The last error of a send, receive, read or write, if any.
  var error: SystemError?
  /// An offload that the kernel has refused and that is used no more.
  var lost = Offloads.none
  /// Packets that the TUN refused.
  var failedWriteCount = 0
  /// Why the horizon of handshake timestamps could not be stored.
  var stampError: SystemError?

  /// The TUN has refused so many packets, with `code`.
  mutating func didFailToWrite(_ count: Int, _ code: Int) {
    failedWriteCount += count
    error = SystemError(code: Int32(truncatingIfNeeded: code))
  }

  /// False where everything went well.
  var needsReport: Bool {
    error != nil || stampError != nil || failedWriteCount > 0 || !lost.isEmpty
  }
}
