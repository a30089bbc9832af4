import Foundation

/// What the kernel has counted in this thread's namespace, of both families.
struct KernelCounters {
  private var values: [String: Int] = [:]

  /// As they are now.
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

  /// Of IPv4 and of IPv6 together: "ReasmOKs" and the like.
  func ip(_ name: String) -> Int {
    values["Ip.\(name)", default: 0] + values["Ip6\(name)", default: 0]
  }

  /// Packets that were no good: wrong checksums, headers, lengths.
  var errors: Int {
    let names = [
      "Ip.InHdrErrors", "Ip.InDiscards", "Icmp.InErrors", "Icmp.InCsumErrors", "Udp.InErrors",
      "Udp.InCsumErrors", "Ip6InHdrErrors", "Ip6InDiscards", "Ip6InTruncatedPkts",
      "Icmp6InErrors", "Icmp6InCsumErrors", "Udp6InErrors", "Udp6InCsumErrors",
    ]
    return names.map { values[$0, default: 0] }.reduce(0, +)
  }
}
