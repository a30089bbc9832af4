import Culvert
import Glibc
import Testing

@testable import CulvertLinux

@Suite struct ForwardMappingTests {
  private enum Outcome: Equatable {
    case mapping(ForwardMapping)
    case mistake(ForwardMapping.Mistake)
  }

  private func parse(_ text: String) -> Outcome {
    bytes(text).withUnsafeBytes { text in
      do throws(ForwardMapping.Mistake) {
        return .mapping(try ForwardMapping.parse(text))
      } catch {
        return .mistake(error)
      }
    }
  }

  private static let any4 = IPAddress(ipv4: 0)
  private static let any6 = IPAddress(ipv6High: 0, low: 0)
  private static let ten = Endpoint(address: IPAddress(ipv4: 0x0a00_0001), port: 53)
  private static let local6 = Endpoint(
    address: IPAddress(ipv6High: 0xfd00_0000_0000_0000, low: 1), port: 5300)

  @Test(arguments: [
    ("127.0.0.1:53=10.0.0.1:53", Endpoint(address: loopback4, port: 53), ten),
    ("[::1]:5353=[fd00::1]:5300", Endpoint(address: loopback6, port: 5353), local6),
    // Clients of one family, and a destination of the other.
    ("[::1]:1=10.0.0.1:53", Endpoint(address: loopback6, port: 1), ten),
    ("127.0.0.1:65535=[fd00::1]:5300", Endpoint(address: loopback4, port: 65535), local6),
    ("0.0.0.0:53=10.0.0.1:53", Endpoint(address: any4, port: 53), ten),
    ("[::]:53=10.0.0.1:53", Endpoint(address: any6, port: 53), ten),
    (":53=10.0.0.1:53", Endpoint(address: loopback4, port: 53), ten),
    (":65535=10.0.0.1:53", Endpoint(address: loopback4, port: 65535), ten),
    (
      "[fe80::1%7]:53=10.0.0.1:53",
      Endpoint(address: IPAddress(ipv6High: 0xfe80 << 48, low: 1), port: 53, scope: 7), ten
    ),
    (
      "[fe80::1%lo]:53=10.0.0.1:53",
      Endpoint(address: IPAddress(ipv6High: 0xfe80 << 48, low: 1), port: 53, scope: 1), ten
    ),
  ])
  func whatIsTaken(text: String, local: Endpoint, target: Endpoint) {
    #expect(parse(text) == .mapping(ForwardMapping(local: local, target: target)))
  }

  @Test(
    arguments: [
      ("", .noSeparator), ("127.0.0.1:53", .noSeparator),
      ("127.0.0.1:53:10.0.0.1:53", .noSeparator),
      ("=10.0.0.1:53", .badLocal), ("53=10.0.0.1:53", .badLocal), (":=10.0.0.1:53", .badLocal),
      (":65536=10.0.0.1:53", .badLocal), (":0000053=10.0.0.1:53", .badLocal),
      (":5x=10.0.0.1:53", .badLocal), ("127.0.0.1=10.0.0.1:53", .badLocal),
      ("::1:53=10.0.0.1:53", .badLocal), ("[127.0.0.1]:53=10.0.0.1:53", .badLocal),
      ("localhost:53=10.0.0.1:53", .badLocal), ("224.0.0.1:53=10.0.0.1:53", .badLocal),
      ("[ff02::1]:53=10.0.0.1:53", .badLocal), (" :53=10.0.0.1:53", .badLocal),
      ("127.0.0.1:53=", .badTarget), (":53=:53", .badTarget), (":53=10.0.0.1", .badTarget),
      (":53=fd00::1:53", .badTarget), (":53=dns.example:53", .badTarget),
      (":53=10.0.0.1:53=10.0.0.2:53", .badTarget), (":53=10.0.0.1:53,", .badTarget),
      (":0=10.0.0.1:53", .localPortZero), ("[::1]:0=10.0.0.1:53", .localPortZero),
      (":53=10.0.0.1:0", .targetPortZero), (":53=0.0.0.0:53", .targetUnspecified),
      (":53=[::]:53", .targetUnspecified), (":53=224.0.0.251:5353", .targetMulticast),
      (":53=[ff02::fb]:5353", .targetMulticast), (":53=[fe80::1%3]:53", .targetZone),
      (":53=[fe80::1%lo]:53", .targetZone), ("[fe80::1%nothere]:53=10.0.0.1:53", .unknownZone),
    ] as [(String, ForwardMapping.Mistake)])
  func whatIsRefused(text: String, mistake: ForwardMapping.Mistake) {
    #expect(parse(text) == .mistake(mistake))
  }

  /// No truncated value is read beyond its end, and few of them are valid.
  @Test func cutsAreRefused() {
    let whole = "[fe80::1%lo]:5353=[fd00::1]:5300"
    for count in 0..<whole.utf8.count {
      let taken = parse(String(whole.prefix(count)))
      let isShorterPort = count > whole.utf8.count - 4
      if case .mapping = taken { #expect(isShorterPort) } else { #expect(!isShorterPort) }
    }
  }

  @Test func everyMistakeHasItsText() {
    let texts: [ForwardMapping.Mistake] = [
      .noSeparator, .badLocal, .badTarget, .localPortZero, .targetPortZero, .targetUnspecified,
      .targetMulticast, .targetZone, .unknownZone,
    ]
    #expect(Set(texts.map { "\($0.text)" }).count == texts.count)
  }
}
