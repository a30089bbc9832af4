import Culvert

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
