import Culvert
import Glibc

@testable import CulvertLinux

/// A tunnel, and files that are loaded into it.
final class ConfigFileLoad {
  static let privateKey = "hSDwCYkwp1R0i33ctD73Wg2/Og0mOBr066SpjqqbTmo="
  static let peerKeys = [
    "6Ii5bUV20MHhBzcnUr0dyeYYPEX6E4/0ZZKDLI7/q18=",
    "3p7bfXt9wbTTW2HC7OQ1Nz+DQ8hbeGdNrfx+FG+IK08=",
  ]
  static let limits = {
    var limits = Profile.tiny.limits
    limits.peers = 4
    limits.allowedIPs = 8
    return limits
  }()

  let region: MemoryRegion
  var tunnel: Tunnel
  var settings: ConfigFileSettings
  private let memory: UnsafeMutableRawBufferPointer
  private let settingsMemory: UnsafeMutableRawBufferPointer
  /// What the last load printed on standard error.
  private(set) var said = ""

  init() throws {
    region = try MemoryRegion(byteCount: 4 << 20)
    var arena = Arena(region: region.bytes)
    var tunnel = Tunnel(carvingFrom: &arena, limits: ConfigFileLoad.limits)
    tunnel.start(entropy: .seeded(1))
    self.tunnel = tunnel
    memory = .allocate(byteCount: ConfigFile.byteCount, alignment: 16)
    memory.initializeMemory(as: UInt8.self, repeating: 0xee)
    settingsMemory = .allocate(byteCount: ConfigFileSettings.byteCount, alignment: 16)
    settings = ConfigFileSettings(memory: settingsMemory)
  }

  deinit {
    memory.deallocate()
    settingsMemory.deallocate()
  }

  /// Whether nothing of the file is left in memory.
  var isWiped: Bool { memory.allSatisfy { $0 == 0 } }

  /// The failure message, without the file's directory; nil on success.
  func load(_ text: String, mode: mode_t = 0o600) -> String? {
    withTemporaryDirectory { directory in
      ConfigFileLoad.write(text, to: directory + "/exit.conf", mode)
      return load(path: directory + "/exit.conf", directory)
    }
  }

  /// The same, with the text from a pipe.
  func loadFromPipe(_ text: String) -> String? {
    var ends: [Int32] = [0, 0]
    precondition(pipe(&ends) == 0)
    let source = FileDescriptor(taking: ends[0])
    do {
      let target = FileDescriptor(taking: ends[1])
      precondition(bytes(text).withUnsafeBytes { target.write($0) } == text.utf8.count)
    }
    return withTemporaryDirectory { load(path: "/dev/fd/\(source.raw)", $0) }
  }

  func load(path: String, _ directory: String) -> String? {
    var ends: [Int32] = [0, 0]
    precondition(pipe(&ends) == 0)
    let source = FileDescriptor(taking: ends[0])
    let failure = path.withCString { load($0, to: ends[1]) }
    close(ends[1])
    var buffer = [UInt8](repeating: 0, count: 65_536)
    let count = buffer.withUnsafeMutableBytes { source.read(into: $0) }
    said = ConfigFileLoad.plain(
      String(decoding: buffer[..<max(0, count)], as: UTF8.self), directory)
    return failure.map { ConfigFileLoad.plain($0, directory) }
  }

  private func load(_ path: UnsafePointer<CChar>, to output: Int32) -> String? {
    let file = ConfigFile(path, memory: memory, output: output)
    do throws(ConfigFailure) {
      try file.load(into: &tunnel, &settings, at: Instant(nanoseconds: 1))
      return nil
    } catch {
      return text { error.append(to: &$0) }
    }
  }

  private static func plain(_ text: String, _ directory: String) -> String {
    text.split(separator: directory + "/", omittingEmptySubsequences: false).joined()
  }

  static func write(_ text: String, to path: String, _ mode: mode_t) {
    let file = FileDescriptor(taking: open(path, O_WRONLY | O_CREAT | O_TRUNC, mode))
    fchmod(file.raw, mode)
    var rest = bytes(text)
    while !rest.isEmpty {
      rest.removeFirst(rest.withUnsafeBytes { file.write($0) })
    }
  }

  // MARK: The tunnel

  static func bytesOfKey(_ text: String) -> [UInt8] {
    var key = [UInt8](repeating: 0, count: 32)
    let isKey = bytes(text).withUnsafeBytes { text in
      key.withUnsafeMutableBytes { Base64.decodeKey(text, into: $0.baseAddress!) }
    }
    precondition(isKey)
    return key
  }

  static func key(_ text: String) -> Key {
    bytesOfKey(text).withUnsafeBytes { Key(at: $0.baseAddress!) }
  }

  /// The private key as stored in the tunnel, clamped; empty if there is none.
  var privateKey: [UInt8] {
    guard let key = tunnel.privateKey else { return [] }
    return Array(UnsafeRawBufferPointer(start: key, count: 32))
  }

  func endpoint(_ key: String) -> Endpoint? {
    guard let id = tunnel.findPeer(ConfigFileLoad.key(key)) else { return nil }
    return tunnel.status(of: id)?.endpoint
  }

  /// "key endpoint keepalive psk allowed,allowed", with the first bytes of keys.
  func peers() -> [String] {
    var lines: [String] = []
    var next = tunnel.firstPeer
    while let id = next {
      let status = tunnel.status(of: id)!
      var allowed: [String] = []
      var cursor = tunnel.allowedIPs(of: id)!
      while let prefix = tunnel.next(&cursor) {
        allowed.append(text { $0.append(prefix.address) } + "/\(prefix.length)")
      }
      let key = withUnsafeBytes(of: status.publicKey) { $0[0] }
      let shared = status.presharedKey.load(as: UInt8.self)
      let endpoint = status.endpoint.map { endpoint in text { $0.append(endpoint) } } ?? "-"
      lines.append(
        "\(key) \(endpoint) \(status.persistentKeepalive) \(shared) "
          + allowed.sorted().joined(separator: ","))
      next = tunnel.peer(after: id)
    }
    return lines.sorted()
  }
}
