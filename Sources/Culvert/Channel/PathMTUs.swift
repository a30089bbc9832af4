/// What ICMP has said about the MTU of the way to a few destinations beyond the tunnel (RFC 1191,
/// RFC 8201), in a fixed table: the oldest is forgotten for a new one.
struct PathMTUs: ~Copyable {
  private struct Entry: BitwiseCopyable {
    var destination: IPAddress
    var mtu: Int
    var end: Instant
  }

  static let capacity = 8
  /// RFC 1191 section 6.3 and RFC 8201 section 5.3: a larger one may be tried again after this.
  static let lifetime = 600 * nanosecondsPerSecond

  private let entries: UnsafeMutablePointer<Entry>
  private var count = 0

  init(carvingFrom arena: inout Arena) {
    entries =
      arena.carve(Entry.self, count: PathMTUs.capacity, owner: "channels").baseAddress!
  }

  /// What is known; nil for nothing.
  @inline(__always)
  mutating func mtu(to destination: IPAddress, at now: Instant) -> Int? {
    if count == 0 { return nil }
    guard let index = find(destination) else { return nil }
    if entries[index].end > now { return entries[index].mtu }
    count &-= 1
    entries[index] = entries[count]
    return nil
  }

  /// A path's MTU is only ever lowered; it comes back with time. Below what the family guarantees
  /// it is not believed: a smaller one would be a way to make us work (RFC 8201 section 6).
  mutating func lower(to destination: IPAddress, mtu: Int, at now: Instant) {
    let least = PathMTUs.least(destination.family)
    let mtu = max(mtu, least)
    let entry = Entry(
      destination: destination, mtu: mtu, end: now.advanced(by: PathMTUs.lifetime))
    if let index = find(destination) {
      if mtu < entries[index].mtu || entries[index].end <= now { entries[index] = entry }
      return
    }
    if count < PathMTUs.capacity {
      entries[count] = entry
      count &+= 1
      return
    }
    var oldest = 0
    for index in 1..<PathMTUs.capacity where entries[index].end < entries[oldest].end {
      oldest = index
    }
    entries[oldest] = entry
  }

  mutating func forgetAll() { count = 0 }

  /// What every path of the family carries (RFC 791 section 3.1 as hosts rely on it, RFC 8200
  /// section 5).
  private static func least(_ family: IPAddress.Family) -> Int {
    family == .ipv4 ? 576 : Policy.ipv6MinimumMTU
  }

  private func find(_ destination: IPAddress) -> Int? {
    for index in 0..<count where entries[index].destination == destination { return index }
    return nil
  }
}
