import CLinux
import Culvert

/// A configuration file of wg(8) or wg-quick(8), which is loaded into a tunnel at startup.
///
/// The file is read twice. The first pass only checks it, so that a file with an error leaves the
/// tunnel unchanged. A pipe (`--config <(...)`) can only be read once and is applied in that pass.
/// After an error while applying (in a pipe, or because a table is full), the tunnel has neither a
/// key nor peers.
struct ConfigFile: ~Copyable {
  /// The layout of the memory, which is locked because the lines contain keys.
  private enum Layout {
    static var presharedKey: Int { 0 }
    static var parser: Int { WireGuard.keyByteCount }
    static var lines: Int { parser + ConfigParser.byteCount }
    /// Room for a long list of allowed IPs on one line.
    static var lineByteCount: Int { 8192 }
    static var byteCount: Int { lines + lineByteCount }
  }

  /// Bytes of the memory that `init` takes.
  static var byteCount: Int { Layout.byteCount }
  /// Enough for more than 131,072 allowed IPs, one per line. The text in `ConfigFailure` contains
  /// this limit.
  private static let longestFile = 32 << 20

  private let path: UnsafePointer<CChar>
  private let memory: UnsafeMutableRawPointer
  /// The descriptor for warnings.
  private let output: Int32

  /// - Parameters:
  ///   - path: NUL-terminated, never freed (an argument).
  ///   - memory: `byteCount` bytes of locked memory. Files that are loaded one after another may
  ///     share it, because `load` wipes it.
  init(
    _ path: UnsafePointer<CChar>, memory: UnsafeMutableRawBufferPointer,
    output: Int32 = Output.standardError
  ) {
    precondition(memory.count >= Layout.byteCount)
    self.path = path
    self.memory = memory.baseAddress!
    self.output = output
  }

  /// Sets the tunnel's private key, adds the file's peers to the existing ones, and replaces
  /// `settings` with the file's other settings, among them the host names of endpoints. Warnings
  /// are written to standard error.
  func load(
    into tunnel: inout Tunnel, _ settings: inout ConfigFileSettings, at now: Instant
  ) throws(ConfigFailure) {
    let memory = memory
    defer { Secret.wipe(memory, byteCount: Layout.byteCount) }
    let presharedKey = memory + Layout.presharedKey
    var traits: UInt32 = 0
    let file = FileDescriptor(taking: clinux_file_open(path, &traits))
    guard file.isOpen else { throw failure(.unreadable(SystemError(code: -file.raw))) }
    if traits & UInt32(CLINUX_FILE_DIRECTORY) != 0 { throw failure(.directory) }
    if traits & UInt32(CLINUX_FILE_EXPOSED) != 0 { warnOfExposure() }
    if traits & UInt32(CLINUX_FILE_SEEKABLE) != 0 {
      var check = ConfigFilePass(path: path, isApplying: false, presharedKey: presharedKey)
      try read(file, &check, &tunnel, &settings, at: now)
      _ = clinux_file_rewind(file.raw)
    }
    do throws(ConfigFailure) {
      var apply = ConfigFilePass(path: path, isApplying: true, presharedKey: presharedKey)
      try read(file, &apply, &tunnel, &settings, at: now)
    } catch {
      tunnel.removeAllPeers()
      // A zero key means no key.
      Secret.wipe(presharedKey, byteCount: WireGuard.keyByteCount)
      tunnel.setPrivateKey(presharedKey, at: now)
      throw error
    }
    warnOfIgnored(settings.ignoredKeys)
  }

  // MARK: Reading

  private func failure(_ reason: ConfigFailure.Reason) -> ConfigFailure {
    ConfigFailure(reason, path: path)
  }

  /// Reads the file from its beginning to its end.
  private func read(
    _ file: borrowing FileDescriptor, _ pass: inout ConfigFilePass, _ tunnel: inout Tunnel,
    _ settings: inout ConfigFileSettings, at now: Instant
  ) throws(ConfigFailure) {
    var reader = LineReader(
      buffer: UnsafeMutableRawBufferPointer(
        start: memory + Layout.lines, count: Layout.lineByteCount))
    var parser = ConfigParser(memory: memory + Layout.parser)
    settings.removeAll()
    defer { tunnel.abandonAllowedIPs() }
    var total = 0
    var isAtEnd = false
    while !isAtEnd {
      let room = reader.makeRoom()
      var count = file.read(into: room)
      if count < 0 { throw failure(.unreadable(SystemError(code: Int32(-count)))) }
      if count == 0 {
        // The last line may lack its newline. If it has one, this only adds an empty line.
        room[0] = UInt8(ascii: "\n")
        count = 1
        isAtEnd = true
      }
      total += count
      if total > ConfigFile.longestFile { throw failure(.tooLarge) }
      reader.didReceive(byteCount: count)
      try applyLines(&reader, &parser, &pass, &tunnel, &settings, at: now)
    }
    if let error = parser.finish() {
      throw ConfigFailure(.wrong(error.reason), path: path, line: error.line)
    }
    try pass.commitSection(&tunnel, &settings, at: now)
  }

  /// Parses and applies the complete lines that have been read.
  private func applyLines(
    _ reader: inout LineReader, _ parser: inout ConfigParser, _ pass: inout ConfigFilePass,
    _ tunnel: inout Tunnel, _ settings: inout ConfigFileSettings, at now: Instant
  ) throws(ConfigFailure) {
    while true {
      let line = reader.next()
      if case .incomplete = line { return }
      parser.begin(line)
      while let statement = parser.next() {
        try pass.apply(statement, parser, &tunnel, &settings, at: now)
      }
    }
  }

  // MARK: Warnings

  private func warnOfExposure() {
    Output.writeLine(to: output) {
      $0.append("culvert: ")
      $0.append(cString: path)
      $0.append(": every user can read this file and its private key; run: chmod 600 ")
      $0.append(cString: path)
    }
  }

  private func warnOfIgnored(_ keys: UInt32) {
    guard keys != 0 else { return }
    Output.writeLine(to: output) {
      $0.append("culvert: ")
      $0.append(cString: path)
      $0.append(": ignored keys:")
      for raw in 0..<ConfigKey.count {
        guard let key = ConfigKey(rawValue: raw), keys & key.bit != 0 else { continue }
        $0.append(" ")
        $0.append(key.name)
      }
      $0.append("; only wg-quick supports them: use it, or make these settings yourself")
    }
  }
}
