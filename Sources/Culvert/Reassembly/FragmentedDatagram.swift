/// What is known of a datagram that is being put together; its bytes lie in its slot's region.
struct FragmentedDatagram: BitwiseCopyable {
  var key: FragmentKey
  /// Bytes of payload, known when the last fragment has come; 0 before.
  var totalByteCount: Int
  /// Bytes of payload that have come.
  var receivedByteCount: Int
  /// Where the furthest fragment ends.
  var extentByteCount: Int
  var fragmentCount: Int
  /// Of the fragment with offset 0, everything before its data; 0 until it comes.
  var headerByteCount: Int
  /// Of the fragment with offset 0, headers included.
  var firstByteCount: Int
  /// Of IPv6: where, from the packet's start, the number of the fragment header stands.
  var numberByteOffset: Int
  /// A bit for each ECN codepoint that has come.
  var marks: UInt8
  /// Its source's number in `SourceShares`.
  var source: UInt8
  /// It was discarded, and its key is not to be used until its time is over (F3).
  var isPoisoned: Bool
  /// When its first fragment came.
  var since: Instant
  /// Counts up with every datagram: which of two is older.
  var number: UInt64

  @inline(__always)
  init(_ key: FragmentKey, since: Instant, number: UInt64, source: UInt8) {
    self.key = key
    self.since = since
    self.number = number
    self.source = source
    totalByteCount = 0
    receivedByteCount = 0
    extentByteCount = 0
    fragmentCount = 0
    headerByteCount = 0
    firstByteCount = 0
    numberByteOffset = 0
    marks = 0
    isPoisoned = false
  }

  @inline(__always)
  var isWhole: Bool { receivedByteCount == totalByteCount }

  /// How long it may wait, in nanoseconds (F9).
  @inline(__always)
  private var time: UInt64 {
    key.family == .ipv4 ? Policy.reassemblyTimeIPv4 : Policy.reassemblyTimeIPv6
  }

  @inline(__always)
  var deadline: Deadline { .after(time, from: since) }

  @inline(__always)
  func isOver(at now: Instant) -> Bool { now.since(since) >= time }

  /// How `fragment` contradicts what is known of the datagram's end; nil where it does not. Then
  /// the end is remembered.
  @inline(__always)
  mutating func refusal(of fragment: Fragment) -> FragmentVerdict? {
    let end = fragment.endByteOffset
    if fragment.isLast {
      if totalByteCount != 0 { return totalByteCount == end ? nil : .differentEnd }
      guard extentByteCount <= end else { return .beyondEnd }
      totalByteCount = end
    } else if totalByteCount != 0, end >= totalByteCount {
      return .beyondEnd
    }
    return nil
  }
}
