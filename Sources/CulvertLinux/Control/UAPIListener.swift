import CLinux

/// The listening end of the configuration socket, DIRECTORY/IF.sock (wireguard.com/xplatform).
public struct UAPIListener: ~Copyable {
  private let listener: FileDescriptor
  private let watch: FileDescriptor
  private let file: clinux_uapi
  private let directory: UnsafePointer<CChar>
  private let name: InterfaceName

  /// Where wg(8) looks.
  public static var defaultDirectory: StaticString { "/var/run/wireguard" }

  private init(
    _ file: clinux_uapi, _ directory: UnsafePointer<CChar>, _ name: InterfaceName
  ) {
    listener = FileDescriptor(taking: file.listener)
    watch = FileDescriptor(taking: file.watch)
    self.file = file
    self.directory = directory
    self.name = name
  }

  /// Creates the socket with mode 0600, and the directory with 0700 where it is missing. A file
  /// that nobody listens on is replaced; EADDRINUSE where somebody does.
  ///
  /// - Parameter directory: NUL-terminated, and there as long as the listener is.
  public static func open(
    _ name: InterfaceName, in directory: UnsafePointer<CChar>
  ) throws(SystemError) -> UAPIListener {
    var file = clinux_uapi()
    try checked(name.withCString { clinux_uapi_open(directory, $0, &file) })
    return UAPIListener(file, directory, name)
  }

  /// The same, where wg(8) looks.
  public static func open(_ name: InterfaceName) throws(SystemError) -> UAPIListener {
    try open(name, in: path(defaultDirectory))
  }

  /// Takes over a listening socket (WG_UAPI_FD). EINVAL where it does not listen.
  public static func adopt(
    _ raw: Int32, _ name: InterfaceName, in directory: UnsafePointer<CChar>
  ) throws(SystemError) -> UAPIListener {
    var file = clinux_uapi()
    try checked(name.withCString { clinux_uapi_adopt(raw, directory, $0, &file) })
    return UAPIListener(file, directory, name)
  }

  public static func adopt(_ raw: Int32, _ name: InterfaceName) throws(SystemError) -> UAPIListener
  {
    try adopt(raw, name, in: path(defaultDirectory))
  }

  /// For epoll: readable when somebody connects.
  public var raw: Int32 { listener.raw }

  /// For epoll: readable when something happened to the socket's file. -1 where inotify is missing;
  /// then `isPresent` still answers.
  public var rawWatch: Int32 { watch.raw }

  /// A connection, non-blocking, to be read and written as a `FileDescriptor`; nil where nobody
  /// waits any more or descriptors are short.
  public func accept() -> FileDescriptor? {
    let raw = clinux_uapi_accept(listener.raw)
    return raw < 0 ? nil : FileDescriptor(taking: raw)
  }

  /// Empties the watch and says whether the file is still the one that was bound. Its deletion
  /// ends the process (R25), as with wireguard-go.
  public func isPresent() -> Bool {
    withUnsafePointer(to: file) { file in
      name.withCString { clinux_uapi_is_present(file, directory, $0) } != 0
    }
  }

  /// Unlinks the file, unless it is not ours any more. For a clean end.
  public func remove() {
    withUnsafePointer(to: file) { file in
      _ = name.withCString { clinux_uapi_remove(file, directory, $0) }
    }
  }

  /// String literals are NUL-terminated.
  private static func path(_ text: StaticString) -> UnsafePointer<CChar> {
    UnsafeRawPointer(text.utf8Start).assumingMemoryBound(to: CChar.self)
  }
}
