import Culvert

/// What a configuration file says that is not the tunnel's own to keep, in fixed memory.
public struct ConfigFileSettings {
  /// 0 for any free port; nil where the file says nothing.
  public internal(set) var listenPort: UInt16?
  /// 0 for none; nil where the file says nothing.
  public internal(set) var firewallMark: UInt32?
  /// Bytes, 68 to the limit; nil where the file says nothing.
  public internal(set) var mtu: UInt16?
  /// Keys that were read and are not carried out, as `ConfigKey.bit`.
  public internal(set) var ignoredKeys: UInt32 = 0
  private var addressCount = 0
  private var nameCount = 0

  private let addressTable: UnsafeMutablePointer<ConfigAddress>
  private let nameTable: UnsafeMutablePointer<ConfigFileName>
  private let texts: UnsafeMutableRawPointer

  public static let maximumAddresses = 8
  public static let maximumNames = 16
  private static let textStride = 256

  /// Bytes of the memory that `init` takes.
  public static var byteCount: Int {
    maximumAddresses * MemoryLayout<ConfigAddress>.stride
      + maximumNames * (MemoryLayout<ConfigFileName>.stride + textStride) + textStride
  }

  /// - Parameter memory: `byteCount` bytes, aligned to 16, that outlive the settings. Nothing
  ///   secret gets there.
  public init(memory: UnsafeMutableRawBufferPointer) {
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
  package var addresses: UnsafeBufferPointer<ConfigAddress> {
    UnsafeBufferPointer(start: addressTable, count: addressCount)
  }

  /// The endpoints given by name, in the order of the file: to be looked up again should one go
  /// stale.
  public var names: UnsafeBufferPointer<ConfigFileName> {
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

  /// False where the table is full.
  mutating func append(_ address: ConfigAddress) -> Bool {
    guard addressCount < ConfigFileSettings.maximumAddresses else { return false }
    addressTable[addressCount] = address
    addressCount += 1
    return true
  }

  /// Takes a name, whose peer is not known yet, into the place behind the last; nil where there is
  /// none. It counts from `keepName` on.
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

  /// Copies what an error message is about, up to 256 bytes of it, behind all names.
  func quote(_ bytes: UnsafeRawBufferPointer) -> UnsafeRawBufferPointer {
    let text = texts + ConfigFileSettings.maximumNames * ConfigFileSettings.textStride
    let count = min(bytes.count, ConfigFileSettings.textStride)
    if count > 0, let source = bytes.baseAddress {
      text.copyMemory(from: source, byteCount: count)
    }
    return UnsafeRawBufferPointer(start: text, count: count)
  }

  mutating func keepName(_ held: ConfigFileName) {
    nameTable[nameCount] = held
    nameCount += 1
  }

  /// The peer stands in the file again, with another endpoint. No peer has the zero key.
  mutating func forgetNames(of publicKey: Key) {
    for index in 0..<nameCount where nameTable[index].publicKey == publicKey {
      nameTable[index].publicKey = .zero
    }
  }
}

/// A peer's endpoint that the file gives by host name.
public struct ConfigFileName: BitwiseCopyable {
  /// The peer's; zero where the file has given it another endpoint since.
  public internal(set) var publicKey: Key
  /// Up to 253 bytes, in the memory of the settings.
  public internal(set) var name: UnsafeRawBufferPointer
  public internal(set) var port: UInt16
  /// Of the file, for error messages.
  var line: UInt32
}
