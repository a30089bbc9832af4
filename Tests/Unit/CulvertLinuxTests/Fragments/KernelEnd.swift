import Foundation
import Glibc
import Testing

@testable import Culvert
@testable import CulvertLinux

/// The kernel behind a TUN of this thread's namespace: one of its sockets, and the packets that
/// cross the interface.
final class KernelEnd {
  enum Kind: CaseIterable {
    case udp
    /// ICMP or ICMPv6: echo requests are sent, and replies received.
    case echo
  }

  private enum Option {
    static let forcedBuffers: [Int32] = [32, 33]  // SO_SNDBUFFORCE, SO_RCVBUFFORCE
    static let discoverMTU: (ipv4: Int32, ipv6: Int32) = (10, 23)  // IP_, IPV6_MTU_DISCOVER
    static let filter: Int32 = 1  // ICMP_FILTER, ICMPV6_FILTER
  }

  /// The same at both ends, so that swapping the addresses of a packet makes it an answer.
  static let port: UInt16 = 4500
  private static let bufferByteCount: Int32 = 8 << 20
  private static let capacity = 65_575

  let family: IPAddress.Family
  private let kind: Kind
  private let tun: TunDevice
  private let socket: FileDescriptor
  private var buffer = [UInt8](repeating: 0, count: capacity + 64)

  /// The kernel's own address, and the one behind the TUN.
  var near: [UInt8] { address(1) }
  var far: [UInt8] { address(2) }

  init(_ family: IPAddress.Family, _ kind: Kind = .udp) throws {
    self.family = family
    self.kind = kind
    tun = try TunDevice.create(InterfaceName("cvt0")!, offloads: .none)
    // Linux disables IPv6 if the MTU is below its minimum.
    try tun.setMTU(65_535)
    try tun.setUp(true)
    if family == .ipv4 {
      try #require(shell("ip addr add 10.9.0.1/24 dev cvt0") == 0)
    } else {
      try #require(addIPv6Address("fd09::1", length: 64, to: "cvt0"))
    }
    let isIPv4 = family == .ipv4
    let type = kind == .udp ? SOCK_DGRAM : SOCK_RAW
    let number = kind == .udp ? IPPROTO_UDP : isIPv4 ? IPPROTO_ICMP : IPPROTO_ICMPV6
    socket = FileDescriptor(
      taking: Glibc.socket(
        isIPv4 ? AF_INET : AF_INET6,
        Int32(type.rawValue | SOCK_NONBLOCK.rawValue | SOCK_CLOEXEC.rawValue), Int32(number)))
    let raw = socket.raw
    try #require(raw >= 0)
    for option in Option.forcedBuffers { set(SOL_SOCKET, option, KernelEnd.bufferByteCount) }
    // Unfragmented packets then have an identification, like fragmented ones, and no DF.
    set(level, isIPv4 ? Option.discoverMTU.ipv4 : Option.discoverMTU.ipv6, 0)
    if kind == .echo { receiveRepliesOnly() }
    let isBound = withSocketAddress(near) { Glibc.bind(raw, $0, $1) }
    try #require(isBound == 0)
  }

  private func address(_ number: UInt8) -> [UInt8] {
    family == .ipv4
      ? [10, 9, 0, number] : [0xfd, 9] + [UInt8](repeating: 0, count: 13) + [number]
  }

  func setMTU(_ mtu: Int) throws {
    try tun.setMTU(UInt32(mtu))
  }

  // MARK: Socket options

  private var level: Int32 { Int32(family == .ipv4 ? IPPROTO_IP : IPPROTO_IPV6) }

  private func set(_ level: Int32, _ option: Int32, _ value: Int32) {
    set(level, option, withUnsafeBytes(of: value) { Array($0) })
  }

  private func set(_ level: Int32, _ option: Int32, _ value: [UInt8]) {
    #expect(setsockopt(socket.raw, level, option, value, socklen_t(value.count)) == 0)
  }

  /// Sets headers of all further packets: IP_OPTIONS, IPV6_HOPOPTS and the like.
  func setHeaders(_ option: Int32, _ value: [UInt8]) {
    set(level, option, value)
  }

  private func receiveRepliesOnly() {
    guard family == .ipv6 else {
      // One bit for each unwanted type.
      set(Int32(SOL_RAW), Option.filter, ~(1 << 0))
      return
    }
    var types = [UInt8](repeating: 0xff, count: 32)
    types[129 / 8] &= ~(1 << (129 % 8))
    set(Int32(IPPROTO_ICMPV6), Option.filter, types)
  }

  // MARK: Sending and receiving

  /// The packets that the kernel sends for a datagram, or an echo request, with this payload. In
  /// both the payload follows 8 bytes of header.
  func send(_ payload: [UInt8]) -> [IPPacket] {
    let message = kind == .udp ? payload : echoRequest(payload)
    let sent = withSocketAddress(far) {
      sendto(socket.raw, message, message.count, 0, $0, $1)
    }
    #expect(sent == message.count)
    return packets()
  }

  /// The packets of one datagram that the kernel has just sent. It also sends other packets to
  /// other addresses.
  func packets() -> [IPPacket] {
    var packets: [IPPacket] = []
    let isComplete = eventually {
      while let packet = read() {
        if packet.destination.elementsEqual(far) { packets.append(packet) }
      }
      guard let last = packets.first(where: { !$0.hasMore }) else { return false }
      return packets.map(\.data.count).reduce(0, +) == last.byteOffset + last.data.count
    }
    #expect(isComplete, "all fragments of a datagram")
    return packets
  }

  private func read() -> IPPacket? {
    let count = buffer.withUnsafeMutableBytes {
      tun.read(into: UnsafeMutableRawBufferPointer(rebasing: $0[64...])).byteCount
    }
    return count < 0 ? nil : IPPacket(Array(buffer[64..<(64 + count)]))
  }

  /// Gives the kernel a packet, as the tunnel does.
  func write(_ packet: IPPacket) {
    var bytes = [UInt8](repeating: 0xee, count: TunDevice.headroom) + packet.bytes
    let written = bytes.withUnsafeMutableBytes {
      tun.write(UnsafeMutableRawBufferPointer(rebasing: $0[TunDevice.headroom...]))
    }
    #expect(written == packet.bytes.count)
  }

  /// The payload of the next datagram or echo reply, as the socket receives it.
  func receive() -> [UInt8]? {
    var count = -1
    let isThere = eventually {
      count = recv(socket.raw, &buffer, buffer.count, 0)
      return count >= 0
    }
    guard isThere else { return nil }
    if kind == .udp { return Array(buffer.prefix(count)) }
    // IPv4 raw sockets deliver the header too.
    return family == .ipv4
      ? IPPacket(Array(buffer.prefix(count))).payload : Array(buffer[8..<count])
  }

  private func echoRequest(_ payload: [UInt8]) -> [UInt8] {
    var message: [UInt8] = [family == .ipv4 ? 8 : 128, 0, 0, 0, 0x12, 0x34, 0, 1] + payload
    // The kernel writes ICMPv6's checksum.
    guard family == .ipv4 else { return message }
    let checksum = ~IPPacket.sum(message)
    message[2] = UInt8(checksum >> 8 & 0xff)
    message[3] = UInt8(checksum & 0xff)
    return message
  }

  private func withSocketAddress<R>(
    _ address: [UInt8], _ body: (UnsafePointer<sockaddr>, socklen_t) -> R
  ) -> R {
    let number = sa_family_t(family == .ipv4 ? AF_INET : AF_INET6)
    // A raw socket has no port, and an IPv6 one refuses it.
    let port = kind == .udp ? KernelEnd.port : 0
    var bytes = withUnsafeBytes(of: number) { Array($0) } + [UInt8(port >> 8), UInt8(port & 0xff)]
    // IPv4: the address and 8 zeros. IPv6: flow label, the address and no scope.
    bytes += family == .ipv4 ? address + [UInt8](repeating: 0, count: 8) : [0, 0, 0, 0] + address
    if family == .ipv6 { bytes += [0, 0, 0, 0] }
    return bytes.withUnsafeBytes {
      body($0.baseAddress!.assumingMemoryBound(to: sockaddr.self), socklen_t($0.count))
    }
  }
}

/// The kernel's counters in this thread's namespace, for both families.
struct KernelCounters {
  private var values: [String: Int] = [:]

  /// The current values.
  init() throws {
    let text = try String(contentsOfFile: "/proc/thread-self/net/snmp", encoding: .utf8)
    let lines = text.split(separator: "\n").map { $0.split(separator: " ") }
    for (names, numbers) in zip(lines, lines.dropFirst()) where names[0] == numbers[0] {
      for (name, number) in zip(names, numbers).dropFirst() {
        values["\(names[0].dropLast()).\(name)"] = Int(number)
      }
    }
    let text6 = try String(contentsOfFile: "/proc/thread-self/net/snmp6", encoding: .utf8)
    for line in text6.split(separator: "\n") {
      let words = line.split(whereSeparator: \.isWhitespace)
      values[String(words[0])] = Int(words[1])
    }
  }

  /// The sum of a counter for IPv4 and IPv6, such as "ReasmOKs".
  func ip(_ name: String) -> Int {
    values["Ip.\(name)", default: 0] + values["Ip6\(name)", default: 0]
  }

  /// Invalid packets: wrong checksums, headers, lengths.
  var errors: Int {
    let names = [
      "Ip.InHdrErrors", "Ip.InDiscards", "Icmp.InErrors", "Icmp.InCsumErrors", "Udp.InErrors",
      "Udp.InCsumErrors", "Ip6InHdrErrors", "Ip6InDiscards", "Ip6InTruncatedPkts",
      "Icmp6InErrors", "Icmp6InCsumErrors", "Udp6InErrors", "Udp6InCsumErrors",
    ]
    return names.map { values[$0, default: 0] }.reduce(0, +)
  }
}
