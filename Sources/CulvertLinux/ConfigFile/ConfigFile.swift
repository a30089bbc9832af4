import CLinux
import Culvert

/// Configuration files of wg(8) and wg-quick(8), read into a tunnel at start.
///
/// A file is read twice: the first time nothing is changed, so that a file with an error in it
/// leaves the tunnel as it was. What can be read but once, a pipe (`--config <(...)`), is taken as
/// it comes, and a failure then leaves the tunnel without key and peers, as does a table that is
/// full.
public struct ConfigFile: ~Copyable {
  /// Locked memory: the lines carry keys.
  private enum Layout {
    static var presharedKey: Int { 0 }
    static var parser: Int { WireGuard.keyByteCount }
    static var lines: Int { parser + ConfigParser.byteCount }
    /// A list of allowed IPs may stand on one line.
    static var lineByteCount: Int { 8192 }
    static var byteCount: Int { lines + lineByteCount }
  }

  /// Bytes of the memory that `init` takes.
  public static var byteCount: Int { Layout.byteCount }
  /// More than 131,072 allowed IPs, each on its line.
  /// A pause is cut into these, to see signals in between.
  private static let sliceMilliseconds = 100
  private static let longestFile = 32 << 20

  private let path: UnsafePointer<CChar>
  private let memory: UnsafeMutableRawPointer
  private var resolver: Resolver
  private let retries: ResolverRetries
  /// Where warnings go.
  private let output: Int32

  /// - Parameters:
  ///   - path: NUL-terminated, never freed (an argument).
  ///   - memory: `byteCount` bytes of locked memory. Files that are read one after the other may
  ///     share it: `load` wipes it.
  public init(_ path: UnsafePointer<CChar>, memory: UnsafeMutableRawBufferPointer) {
    self.init(path, memory: memory, resolver: Resolver(), retries: .fromEnvironment())
  }

  init(
    _ path: UnsafePointer<CChar>, memory: UnsafeMutableRawBufferPointer, resolver: Resolver,
    retries: ResolverRetries, output: Int32 = Output.standardError
  ) {
    precondition(memory.count >= Layout.byteCount)
    self.path = path
    self.memory = memory.baseAddress!
    self.resolver = resolver
    self.retries = retries
    self.output = output
  }

  /// Reads the file, and looks up the host names in it, which may take a while.
  ///
  /// The tunnel's private key and its peers are set; `settings` is replaced by what the file says
  /// besides. Peers that the tunnel had stay. Warnings go to standard error.
  public mutating func load(
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
      try run(&check, file, &tunnel, &settings, at: now)
      _ = clinux_file_rewind(file.raw)
    }
    do throws(ConfigFailure) {
      var apply = ConfigFilePass(path: path, isApplying: true, presharedKey: presharedKey)
      try run(&apply, file, &tunnel, &settings, at: now)
      try findNames(&tunnel, settings)
    } catch {
      tunnel.removeAllPeers()
      // The zero key is none.
      Secret.wipe(presharedKey, byteCount: WireGuard.keyByteCount)
      tunnel.setPrivateKey(presharedKey)
      throw error
    }
    warnOfIgnored(settings.ignoredKeys)
  }

  // MARK: Reading

  private func failure(_ reason: ConfigFailure.Reason) -> ConfigFailure {
    ConfigFailure(reason, path: path)
  }

  /// Reads the file from its beginning to its end.
  private func run(
    _ pass: inout ConfigFilePass, _ file: borrowing FileDescriptor, _ tunnel: inout Tunnel,
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
        // The last line may lack its newline. Where it does not, an empty line does no harm.
        room[0] = 0x0a
        count = 1
        isAtEnd = true
      }
      total += count
      if total > ConfigFile.longestFile { throw failure(.tooLarge) }
      reader.didReceive(byteCount: count)
      try take(&reader, &parser, &pass, &tunnel, &settings, at: now)
    }
    if let error = parser.finish() {
      throw ConfigFailure(.wrong(error.reason), path: path, line: error.line)
    }
    try pass.endSection(&tunnel, &settings, at: now)
  }

  /// Takes all lines that are there.
  private func take(
    _ reader: inout LineReader, _ parser: inout ConfigParser, _ pass: inout ConfigFilePass,
    _ tunnel: inout Tunnel, _ settings: inout ConfigFileSettings, at now: Instant
  ) throws(ConfigFailure) {
    while true {
      let line = reader.next()
      if case .incomplete = line { return }
      parser.begin(line)
      while let statement = parser.next() {
        try pass.take(statement, parser, &tunnel, &settings, at: now)
      }
    }
  }

  // MARK: Host names

  private mutating func findNames(
    _ tunnel: inout Tunnel, _ settings: ConfigFileSettings
  ) throws(ConfigFailure) {
    for name in settings.names where !name.publicKey.isZero {
      let endpoint = try find(name)
      // The device's own key is no peer's.
      if let id = tunnel.findPeer(name.publicKey) { tunnel.setEndpoint(endpoint, of: id) }
    }
  }

  /// Tries again as wg(8) does, with pauses that grow.
  private mutating func find(_ name: ConfigFileName) throws(ConfigFailure) -> Endpoint {
    var pause = retries
    while true {
      try checkSignals()
      switch resolver.find(name.name, port: name.port) {
      case .endpoint(let endpoint): return endpoint
      case .failure(let reason):
        let failure = ConfigFailure(
          .unresolved(reason), path: path, line: name.line, subject: name.name)
        guard reason.isTransient, let milliseconds = pause.next() else { throw failure }
        Output.writeLine(to: output) {
          $0.append("culvert: ")
          failure.append(to: &$0)
          $0.append("; trying again in ")
          $0.append(decimal: UInt64(milliseconds / 1000))
          $0.append(" s")
        }
        var left = milliseconds
        while left > 0 {
          clinux_process_pause(Int32(min(left, ConfigFile.sliceMilliseconds)))
          left -= ConfigFile.sliceMilliseconds
          try checkSignals()
        }
      }
    }
  }

  /// Signals are read by the event loop, which does not run yet.
  private func checkSignals() throws(ConfigFailure) {
    if clinux_signals_is_end_pending() != 0 { throw failure(.interrupted) }
  }

  // MARK: Warnings

  private func warnOfExposure() {
    Output.writeLine(to: output) {
      $0.append("culvert: ")
      $0.append(cString: path)
      $0.append(": everybody can read the private key in it; chmod 600")
    }
  }

  private func warnOfIgnored(_ keys: UInt32) {
    guard keys != 0 else { return }
    Output.writeLine(to: output) {
      $0.append("culvert: ")
      $0.append(cString: path)
      $0.append(": not carried out, since it takes wg-quick:")
      for raw in 0..<ConfigKey.count {
        guard let key = ConfigKey(rawValue: raw), keys & key.bit != 0 else { continue }
        $0.append(" ")
        $0.append(key.name)
      }
    }
  }
}
