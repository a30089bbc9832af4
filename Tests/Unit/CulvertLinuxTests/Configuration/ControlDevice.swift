import Culvert
import Glibc

@testable import CulvertLinux

/// A tunnel with numbered peers, without TUN and sockets, that is configured through connections.
final class ControlDevice {
  private let region: MemoryRegion
  let memory: UnsafeMutableRawBufferPointer
  var interface: Interface

  init() throws {
    var limits = Profile.gateway.limits
    limits.peers = 2048
    limits.stagingSlots = 64
    region = try MemoryRegion(byteCount: 64 << 20)
    var arena = Arena(region: region.bytes)
    var tunnel = Tunnel(carvingFrom: &arena, limits: limits)
    tunnel.start(entropy: .seeded(1))
    memory = .allocate(byteCount: UAPIServer.byteCount, alignment: 16)
    let name = InterfaceName("cvt0")!
    interface = Interface(
      tunnel: tunnel, tun: .none, sockets: UDPSockets(), channel: nil, log: Log(.silent, name),
      stamps: TimestampFile(name, hop: 0))
  }

  deinit { memory.deallocate() }

  // MARK: Peers

  static func key(_ number: Int) -> Key {
    withUnsafeTemporaryAllocation(byteCount: WireGuard.keyByteCount, alignment: 8) { bytes in
      bytes.initializeMemory(as: UInt8.self, repeating: 0x11)
      bytes.storeBytes(of: UInt32(number).bigEndian, as: UInt32.self)
      return Key(at: UnsafeRawPointer(bytes.baseAddress!))
    }
  }

  static func hexadecimalKey(_ number: Int) -> String {
    let digits = String(number, radix: 16)
    let padding = String(repeating: "0", count: 8 - digits.count)
    return padding + digits + String(repeating: "11", count: 28)
  }

  func addPeer(_ number: Int, allowedIPs: Int) {
    let id = try! interface.tunnel.addPeer(ControlDevice.key(number))
    for index in 0..<allowedIPs {
      try! interface.tunnel.stageAllowedIP(ControlDevice.prefix(number, index), add: true)
    }
    interface.tunnel.commitAllowedIPs(to: id)
  }

  func removePeer(_ number: Int) {
    guard let id = interface.tunnel.findPeer(ControlDevice.key(number)) else { return }
    interface.tunnel.removePeer(id)
  }

  func removeFirstAllowedIP(of number: Int) {
    let id = interface.tunnel.findPeer(ControlDevice.key(number))!
    try! interface.tunnel.stageAllowedIP(ControlDevice.prefix(number, 0), add: false)
    interface.tunnel.commitAllowedIPs(to: id)
  }

  private static func prefix(_ number: Int, _ index: Int) -> IPPrefix {
    IPPrefix(IPAddress(ipv4: 0x0a00_0000 + UInt32(number * 1024 + index)), length: 32)!
  }

  // MARK: Replies

  /// How often each peer is listed, by its number.
  static func peerCounts(in lines: [String]) -> [Int: Int] {
    var counts: [Int: Int] = [:]
    for line in lines {
      if let number = number(of: line) { counts[number, default: 0] += 1 }
    }
    return counts
  }

  static func allowedIPCount(of number: Int, in lines: [String]) -> Int {
    guard let start = lines.firstIndex(of: "public_key=" + hexadecimalKey(number)) else { return 0 }
    return lines[(start + 1)...].prefix { !$0.hasPrefix("public_key=") }
      .count { $0.hasPrefix("allowed_ip=") }
  }

  /// The number of the peer that a line starts.
  static func number(of line: String) -> Int? {
    guard line.hasPrefix("public_key=") else { return nil }
    return Int(line.dropFirst("public_key=".count).prefix(8), radix: 16)
  }
}

/// A `get` whose reader takes a few kilobytes at a time.
final class Listing {
  private let device: ControlDevice
  private var connection: UAPIConnection
  private let client: FileDescriptor
  private var text = ""

  init(_ device: ControlDevice) throws {
    self.device = device
    connection = UAPIConnection(memory: device.memory)
    let ends = ControlServer.socketPair()
    var size: Int32 = 2048
    setsockopt(ends.0, SOL_SOCKET, SO_SNDBUF, &size, 4)
    connection.open(FileDescriptor(taking: ends.0))
    client = FileDescriptor(taking: ends.1)
  }

  /// The number of the peer listed last.
  var lastNumber: Int? {
    text.split(separator: "\n").last { $0.hasPrefix("public_key=") && $0.utf8.count > 18 }
      .flatMap { ControlDevice.number(of: String($0)) }
  }

  /// All lines of the reply. Calls `pause` whenever the reply waits for its reader.
  func read(pause: () -> Void) throws -> [String] {
    precondition(bytes("get=1\n\n").withUnsafeBytes { client.write($0) } == 7)
    var buffer = [UInt8](repeating: 0, count: 4096)
    while !text.hasSuffix("\n\n") {
      let outcome = connection.serve(
        &device.interface, isFree: true, at: Instant(nanoseconds: 1))
      if case .closed = outcome { break }
      let count = buffer.withUnsafeMutableBytes { client.read(into: $0) }
      if count > 0 { text += String(decoding: buffer[..<count], as: UTF8.self) }
      if case .writable = outcome { pause() }
    }
    connection.close(&device.interface)
    return text.split(separator: "\n").map { String($0) }
  }
}

/// A configuration socket in a temporary directory, served with virtual time.
final class ControlServer {
  let device: ControlDevice
  var server: UAPIServer
  private let epoll: Epoll
  private let path: String
  private(set) var now = Instant(nanoseconds: 1_000_000_000)
  private var clients: [Int32] = []
  /// What each client has received so far, and whether its connection has ended.
  private var texts: [String] = []
  private var ended: [Bool] = []

  fileprivate init(_ listener: consuming UAPIListener, path: String) throws {
    device = try ControlDevice()
    epoll = try Epoll()
    self.path = path
    server = UAPIServer(listener, memory: device.memory, hop: 0)
    try server.register(in: epoll)
  }

  deinit { for client in clients where client >= 0 { close(client) } }

  static func socketPair() -> (Int32, Int32) {
    var ends: [Int32] = [0, 0]
    let kind = Int32(SOCK_STREAM.rawValue) | Int32(SOCK_NONBLOCK.rawValue)
    precondition(socketpair(AF_UNIX, kind, 0, &ends) == 0)
    return (ends[0], ends[1])
  }

  /// Serves all events, as the event loop does.
  private func run() {
    withUnsafeTemporaryAllocation(of: EpollEvent.self, capacity: 16) { events in
      for index in 0..<16 { events.initializeElement(at: index, to: EpollEvent()) }
      while true {
        let count = epoll.wait(into: events, timeoutMilliseconds: 0)
        if count <= 0 { return }
        for index in 0..<count {
          switch Token.uapi(events[index].token) {
          case .listener: server.accept(&device.interface, epoll, at: now)
          case .connection(_, let place):
            server.serve(place, &device.interface, epoll, at: now)
            server.acceptWaiting(&device.interface, epoll, at: now)
          default: break
          }
        }
      }
    }
  }

  func advance(by duration: UInt64) {
    now = now.advanced(by: duration)
    server.expire(&device.interface, epoll, at: now)
    run()
  }

  // MARK: Clients

  func connect() -> Int {
    let raw = UAPIClient.connect(to: path)
    precondition(raw >= 0 && fcntl(raw, F_SETFL, O_NONBLOCK) == 0)
    clients.append(raw)
    texts.append("")
    ended.append(false)
    run()
    return clients.count - 1
  }

  func send(_ client: Int, _ text: String) {
    let count = bytes(text).withUnsafeBytes { write(clients[client], $0.baseAddress, $0.count) }
    precondition(count == text.utf8.count)
    run()
  }

  func endSending(_ client: Int) {
    shutdown(clients[client], Int32(SHUT_WR))
    run()
  }

  func disconnect(_ client: Int) {
    close(clients[client])
    clients[client] = -1
    run()
  }

  /// What the client has received since the last call.
  func received(_ client: Int) -> String {
    poll(client)
    defer { texts[client] = "" }
    return texts[client]
  }

  func ask(_ client: Int, _ request: String) -> String {
    send(client, request)
    return received(client)
  }

  func isOpen(_ client: Int) -> Bool {
    poll(client)
    return !ended[client]
  }

  /// Whether the connection ends after what has been sent.
  func readToEnd(_ client: Int) -> Bool { !isOpen(client) }

  /// Reads until nothing is left.
  private func poll(_ client: Int) {
    var buffer = [UInt8](repeating: 0, count: 65_536)
    while true {
      let count = recv(clients[client], &buffer, buffer.count, 0)
      if count == 0 || (count < 0 && errno == ECONNRESET) { ended[client] = true }
      if count <= 0 { return }
      texts[client] += String(decoding: buffer[..<count], as: UTF8.self)
      run()
    }
  }
}

func withControlServer(_ body: (ControlServer) throws -> Void) throws {
  try withTemporaryDirectory { directory in
    try directory.withCString { path in
      let listener = try UAPIListener.open(InterfaceName("cvt0")!, in: path)
      try body(try ControlServer(listener, path: directory + "/cvt0.sock"))
    }
  }
}

enum UAPIClient {
  /// Connects to a unix socket; returns -errno on failure.
  static func connect(to path: String) -> Int32 {
    let raw = socket(AF_UNIX, Int32(SOCK_STREAM.rawValue), 0)
    var address = sockaddr_un()
    address.sun_family = sa_family_t(AF_UNIX)
    withUnsafeMutableBytes(of: &address.sun_path) { $0.copyBytes(from: Array(path.utf8)) }
    let size = socklen_t(MemoryLayout<sockaddr_un>.size)
    let result = withUnsafePointer(to: &address) {
      $0.withMemoryRebound(to: sockaddr.self, capacity: 1) { Glibc.connect(raw, $0, size) }
    }
    if result == 0 { return raw }
    let error = errno
    close(raw)
    return -error
  }
}

/// Numbers that a seed determines (SplitMix64).
struct RandomNumbers {
  private var state: UInt64

  init(seed: UInt64) { state = seed }

  mutating func below(_ limit: Int) -> Int {
    state &+= 0x9e37_79b9_7f4a_7c15
    var mixed = state
    mixed = (mixed ^ mixed >> 30) &* 0xbf58_476d_1ce4_e5b9
    mixed = (mixed ^ mixed >> 27) &* 0x94d0_49bb_1331_11eb
    return Int((mixed ^ mixed >> 31) % UInt64(limit))
  }
}
