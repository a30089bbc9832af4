import CLinux
import Culvert

/// Reads a small text file of the system line by line and word by word.
enum ResolverLines {
  /// The words of a line, which are separated by blanks. A `#` ends the line.
  struct Words {
    private let line: UnsafeRawBufferPointer
    private var position = 0

    init(_ line: UnsafeRawBufferPointer) {
      self.line = line
    }

    /// The next word; nil at the end.
    mutating func next() -> UnsafeRawBufferPointer? {
      while position < line.count, Words.isBlank(line[position]) { position += 1 }
      let start = position
      while position < line.count, !Words.isBlank(line[position]),
        line[position] != UInt8(ascii: "#")
      {
        position += 1
      }
      guard position > start else { return nil }
      return UnsafeRawBufferPointer(rebasing: line[start..<position])
    }

    private static func isBlank(_ byte: UInt8) -> Bool {
      byte == UInt8(ascii: " ") || (byte >= UInt8(ascii: "\t") && byte <= UInt8(ascii: "\r"))
    }
  }

  /// Calls `body` with the words of each line. A file that cannot be read counts as empty, and
  /// lines of more than 1023 bytes are skipped.
  ///
  /// - Parameter path: NUL-terminated.
  static func read(_ path: UnsafePointer<CChar>, _ body: (inout Words) -> Void) {
    var traits: UInt32 = 0
    let file = FileDescriptor(taking: clinux_file_open(path, &traits))
    guard file.isOpen else { return }
    withUnsafeTemporaryAllocation(byteCount: 1024, alignment: 1) { buffer in
      var reader = LineReader(buffer: buffer)
      var isAtEnd = false
      while !isAtEnd {
        let room = reader.makeRoom()
        var count = file.read(into: room)
        if count <= 0 {
          // The last line may lack its newline.
          room[0] = UInt8(ascii: "\n")
          count = 1
          isAtEnd = true
        }
        reader.didReceive(byteCount: count)
        passLines(&reader, to: body)
      }
    }
  }

  private static func passLines(_ reader: inout LineReader, to body: (inout Words) -> Void) {
    while true {
      switch reader.next() {
      case .line(let line):
        var words = Words(line)
        body(&words)
      case .overlong: break
      case .incomplete: return
      }
    }
  }

  /// Whether both texts are equal, ignoring case.
  static func isEqual(_ left: UnsafeRawBufferPointer, _ right: UnsafeRawBufferPointer) -> Bool {
    guard left.count == right.count else { return false }
    for index in 0..<left.count
    where NameReader.lowercase(left[index]) != NameReader.lowercase(right[index]) {
      return false
    }
    return true
  }
}

/// The system's files about names: /etc/hosts, and the servers in /etc/resolv.conf. Both are read
/// at the beginning of each lookup, here and nowhere else.
///
/// From resolv.conf up to three `nameserver` lines are used, or 127.0.0.1 if there are none. A
/// search list is not used: a name is complete as written.
struct ResolverFiles: BitwiseCopyable {
  /// NUL-terminated paths, never freed.
  private let hosts: UnsafePointer<CChar>
  private let configuration: UnsafePointer<CChar>
  private let port: UInt16

  /// The system's files.
  init() {
    // String literals are NUL-terminated.
    let hosts: StaticString = "/etc/hosts"
    let configuration: StaticString = "/etc/resolv.conf"
    self.init(
      hosts: UnsafeRawPointer(hosts.utf8Start).assumingMemoryBound(to: CChar.self),
      configuration: UnsafeRawPointer(configuration.utf8Start).assumingMemoryBound(to: CChar.self))
  }

  /// Other files and another port of the servers, for tests.
  init(
    hosts: UnsafePointer<CChar>, configuration: UnsafePointer<CChar>, port: UInt16 = 53
  ) {
    self.hosts = hosts
    self.configuration = configuration
    self.port = port
  }

  /// Offers the name's endpoints in the hosts file to `list`.
  func findInHosts(_ name: UnsafeRawBufferPointer, port: UInt16, _ list: inout CandidateSort) {
    ResolverLines.read(hosts) { words in
      guard let first = words.next(), let zoned = AddressText.zonedAddress(first) else { return }
      while let word = words.next() {
        guard let alias = ConfigHostName.name(word), ResolverLines.isEqual(alias, name) else {
          continue
        }
        var endpoint = Endpoint(
          address: zoned.address.unmapped, port: port, scope: zoned.scope)
        if zoned.zoneName.count > 0 {
          guard let scope = InterfaceIndex.find(zoned.zoneName) else { return }
          endpoint.scope = scope
        }
        list.offer(endpoint)
        return
      }
    }
  }

  /// The name servers, at least one.
  func readServers() -> NameServers {
    var servers = NameServers()
    ResolverLines.read(configuration) { words in
      guard let key = words.next(), ResolverFiles.isNameserver(key), let word = words.next(),
        let zoned = AddressText.zonedAddress(word)
      else { return }
      let scope =
        zoned.zoneName.count > 0 ? InterfaceIndex.find(zoned.zoneName) ?? 0 : zoned.scope
      servers.append(Endpoint(address: zoned.address.unmapped, port: port, scope: scope))
    }
    if servers.count == 0 {
      servers.append(Endpoint(address: IPAddress(ipv4: 0x7f00_0001), port: port))
    }
    return servers
  }

  private static func isNameserver(_ word: UnsafeRawBufferPointer) -> Bool {
    let key: StaticString = "nameserver"
    return ResolverLines.isEqual(
      word, UnsafeRawBufferPointer(start: key.utf8Start, count: key.utf8CodeUnitCount))
  }
}

/// Up to three name servers, in the order of resolv.conf.
struct NameServers: BitwiseCopyable {
  private var servers = InlineArray<3, Endpoint>(
    repeating: Endpoint(address: IPAddress(ipv4: 0), port: 0))
  private(set) var count = 0

  subscript(index: Int) -> Endpoint { servers[index] }

  /// Ignores those beyond the third.
  mutating func append(_ server: Endpoint) {
    guard count < 3 else { return }
    servers[count] = server
    count += 1
  }

  /// The index of a server; 0 if it is not in the list.
  func index(of server: Endpoint?) -> Int {
    for index in 0..<count where servers[index] == server { return index }
    return 0
  }
}
