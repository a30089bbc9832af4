import Testing

@testable import Culvert

/// The table of path MTUs against a dictionary.
@Suite struct PathMTUsTests {
  /// The table, with time.
  private final class Table {
    let memory = TestArena(byteCount: 1 << 16)
    var paths: PathMTUs
    var now = Instant(nanoseconds: 5_000 * nanosecondsPerSecond)

    init() {
      paths = PathMTUs(carvingFrom: &memory.arena)
      paths.start()
    }

    func mtu(_ host: UInt8) -> Int? { paths.mtu(to: ipv4(192, 0, 2, host), at: now) }
    /// An error about a datagram that was sent.
    func lower(_ host: UInt8, _ mtu: Int) {
      paths.noteSent(to: ipv4(192, 0, 2, host))
      expect(forge(host, mtu))
    }
    /// An error; whether it was accepted.
    func forge(_ host: UInt8, _ mtu: Int) -> Bool {
      paths.lower(to: ipv4(192, 0, 2, host), mtu: mtu, at: now)
    }
    func wait(seconds: UInt64) { now = now.advanced(by: seconds * nanosecondsPerSecond) }
  }

  private let table = Table()

  @Test func nothingIsKnownAtFirst() {
    #expect(table.mtu(1) == nil)
  }

  /// RFC 791 section 3.1, RFC 8200 section 5.
  @Test func neverBelowWhatEveryPathCarries() {
    for mtu in [0, 1, 68, 575, 576, 577, 1279, 1280, 65_535] {
      let table = Table()
      let (host4, host6) = (ipv4(192, 0, 2, 1), ipv6(0x2001_0db8 << 32, 1))
      table.paths.noteSent(to: host4)
      table.paths.noteSent(to: host6)
      expect(table.paths.lower(to: host4, mtu: mtu, at: table.now))
      // RFC 8201 section 4: an IPv6 MTU below the minimum is ignored.
      expect(table.paths.lower(to: host6, mtu: mtu, at: table.now) == (mtu >= 1280))
      let (known4, known6) = (
        table.paths.mtu(to: host4, at: table.now), table.paths.mtu(to: host6, at: table.now)
      )
      #expect(known4 == max(mtu, 576))
      #expect(known6 == (mtu < 1280 ? nil : mtu))
    }
  }

  @Test func onlyLowered() {
    table.lower(1, 1400)
    table.lower(1, 1500)
    #expect(table.mtu(1) == 1400)
    table.lower(1, 1300)
    #expect(table.mtu(1) == 1300)
    table.lower(1, 1400)
    #expect(table.mtu(1) == 1300)
    #expect(table.mtu(2) == nil)
  }

  /// Errors about hosts that nothing was sent to replace no entry.
  @Test func R55_onlyDestinationsThatWereSentTo() {
    for host: UInt8 in 1...8 { table.lower(host, 1300) }
    for host: UInt8 in 100...200 { #expect(!table.forge(host, 600)) }
    for host: UInt8 in 1...8 { #expect(table.mtu(host) == 1300) }
  }

  /// RFC 1191 section 6.3: ten minutes.
  @Test func itComesBackWithTime() {
    table.lower(1, 1300)
    table.wait(seconds: 599)
    #expect(table.mtu(1) == 1300)
    // A larger MTU is ignored, and does not extend the life of the smaller one.
    table.lower(1, 1400)
    table.wait(seconds: 1)
    #expect(table.mtu(1) == nil)
    table.lower(1, 1400)
    #expect(table.mtu(1) == 1400)
    // An expired entry that nobody has asked about since then is not kept.
    table.wait(seconds: 600)
    table.lower(1, 1500)
    #expect(table.mtu(1) == 1500)
    // A smaller MTU starts its own lifetime.
    table.wait(seconds: 300)
    table.lower(1, 1200)
    table.wait(seconds: 599)
    #expect(table.mtu(1) == 1200)
    table.wait(seconds: 1)
    #expect(table.mtu(1) == nil)
  }

  @Test func theOldestMakesRoom() {
    for host: UInt8 in 1...8 {
      table.lower(host, 1000 + Int(host))
      table.wait(seconds: 1)
    }
    table.lower(1, 900)
    table.lower(9, 1009)
    // Entry 1 was lowered again, so entry 2 was the oldest.
    #expect(table.mtu(2) == nil)
    for host: UInt8 in [1, 3, 4, 5, 6, 7, 8, 9] { #expect(table.mtu(host) != nil) }
  }

  @Test func forgetting() {
    table.lower(1, 1000)
    table.lower(2, 1000)
    table.paths.forgetAll()
    #expect(table.mtu(1) == nil && table.mtu(2) == nil)
    table.lower(2, 1200)
    #expect(table.mtu(2) == 1200 && table.mtu(1) == nil)
  }

  @Test(arguments: 0..<20 as Range<UInt64>) func agreesWithADictionary(seed: UInt64) {
    var random = SeededGenerator(seed: seed)
    var model: [UInt8: (mtu: Int, end: UInt64)] = [:]
    for number in 0..<400 {
      // No two expire at the same time, so there is always one oldest entry.
      table.now = table.now.advanced(by: 1)
      let host = UInt8.random(in: 1...12, using: &random)
      switch Int.random(in: 0..<10, using: &random) {
      case 0..<4:
        let mtu = Int.random(in: 500...1500, using: &random)
        table.lower(host, mtu)
        let end = table.now.nanoseconds + 600 * nanosecondsPerSecond
        if let old = model[host], old.end > table.now.nanoseconds, old.mtu <= max(mtu, 576) {
          break
        }
        if model[host] == nil, model.count == 8 {
          let oldest = model.min { $0.value.end < $1.value.end }
          model[oldest!.key] = nil
        }
        model[host] = (max(mtu, 576), end)
      case 4..<9:
        let known = table.mtu(host)
        if let entry = model[host], entry.end <= table.now.nanoseconds { model[host] = nil }
        #expect(known == model[host]?.mtu, "step \(number)")
      default: table.wait(seconds: UInt64.random(in: 1...200, using: &random))
      }
    }
  }
}
