import Culvert

/// The settings of a configuration file that the tunnel itself does not store, in fixed memory.
struct ConfigFileSettings {
  /// 0 for any free port; nil if the file does not set it.
  var listenPort: UInt16?
  /// 0 for none; nil if the file does not set it.
  var firewallMark: UInt32?
  /// Bytes, 68 to the limit; nil if the file does not set it.
  var mtu: UInt16?
  /// Valid keys that are ignored, as `ConfigKey.bit`.
  var ignoredKeys: UInt32 = 0
  private var addressCount = 0
  private var nameCount = 0

  private let addressTable: UnsafeMutablePointer<ConfigAddress>
  private let nameTable: UnsafeMutablePointer<ConfigFileName>
  private let texts: UnsafeMutableRawPointer

  static let maximumAddresses = 8
  static let maximumNames = 16
  private static let textStride = 256

  /// Bytes of the memory that `init` takes.
  static var byteCount: Int {
    maximumAddresses * MemoryLayout<ConfigAddress>.stride
      + maximumNames * (MemoryLayout<ConfigFileName>.stride + textStride) + textStride
  }

  /// - Parameter memory: `byteCount` bytes, aligned to 16, that outlive the settings. No secrets
  ///   are written to it.
  init(memory: UnsafeMutableRawBufferPointer) {
    precondition(memory.count >= ConfigFileSettings.byteCount)
    let base = memory.baseAddress!
    addressTable = base.assumingMemoryBound(to: ConfigAddress.self)
    let names =
      base + ConfigFileSettings.maximumAddresses * MemoryLayout<ConfigAddress>.stride
    nameTable = names.assumingMemoryBound(to: ConfigFileName.self)
    texts =
      names + ConfigFileSettings.maximumNames * MemoryLayout<ConfigFileName>.stride
  }

  /// The interface's addresses, in the order of the file.
  var addresses: UnsafeBufferPointer<ConfigAddress> {
    UnsafeBufferPointer(start: addressTable, count: addressCount)
  }

  /// The endpoints given by host name, in the order of the file.
  var names: UnsafeBufferPointer<ConfigFileName> {
    UnsafeBufferPointer(start: nameTable, count: nameCount)
  }

  mutating func removeAll() {
    listenPort = nil
    firewallMark = nil
    mtu = nil
    ignoredKeys = 0
    addressCount = 0
    nameCount = 0
  }

  /// False if the table is full.
  mutating func append(_ address: ConfigAddress) -> Bool {
    guard addressCount < ConfigFileSettings.maximumAddresses else { return false }
    addressTable[addressCount] = address
    addressCount += 1
    return true
  }

  /// Stores a name whose peer is not known yet behind the last entry; `keepName` adds it. Nil if
  /// the table is full.
  mutating func hold(
    _ name: UnsafeRawBufferPointer, port: UInt16, line: UInt32
  ) -> ConfigFileName? {
    guard nameCount < ConfigFileSettings.maximumNames, let source = name.baseAddress,
      name.count <= ConfigHostName.longestByteCount
    else { return nil }
    let text = texts + nameCount * ConfigFileSettings.textStride
    text.copyMemory(from: source, byteCount: name.count)
    return ConfigFileName(
      publicKey: .zero, name: UnsafeRawBufferPointer(start: text, count: name.count), port: port,
      line: line)
  }

  /// Adds the name that `hold` has stored.
  mutating func keepName(_ held: ConfigFileName) {
    nameTable[nameCount] = held
    nameCount += 1
  }

  /// Invalidates a peer's names, because a later section gives the peer another endpoint. Sets
  /// their keys to zero, which is no peer's key.
  mutating func forgetNames(of publicKey: Key) {
    for index in 0..<nameCount where nameTable[index].publicKey == publicKey {
      nameTable[index].publicKey = .zero
    }
  }

  /// Copies the subject of an error message, up to 256 bytes of it, to the end of the memory.
  func quote(_ bytes: UnsafeRawBufferPointer) -> UnsafeRawBufferPointer {
    let text = texts + ConfigFileSettings.maximumNames * ConfigFileSettings.textStride
    let count = min(bytes.count, ConfigFileSettings.textStride)
    if count > 0, let source = bytes.baseAddress {
      text.copyMemory(from: source, byteCount: count)
    }
    return UnsafeRawBufferPointer(start: text, count: count)
  }
}

/// A peer's endpoint, given by host name.
struct ConfigFileName: BitwiseCopyable {
  /// The peer's key; zero if a later section of the file gives that peer another endpoint.
  var publicKey: Key
  /// Up to 253 bytes, in the memory of the settings.
  var name: UnsafeRawBufferPointer
  var port: UInt16
  /// The line of the file, for error messages.
  var line: UInt32
}
