import CLinux

/// The listening end of the configuration socket, DIRECTORY/IF.sock (wireguard.com/xplatform).
struct UAPIListener: ~Copyable {
  private let listener: FileDescriptor
  private let watch: FileDescriptor
  private let file: clinux_uapi
  private let directory: UnsafePointer<CChar>
  private let name: InterfaceName

  /// The directory that wg(8) uses.
  static var defaultDirectory: StaticString { "/var/run/wireguard" }

  private init(
    _ file: clinux_uapi, _ directory: UnsafePointer<CChar>, _ name: InterfaceName
  ) {
    listener = FileDescriptor(taking: file.listener)
    watch = FileDescriptor(taking: file.watch)
    self.file = file
    self.directory = directory
    self.name = name
  }

  /// Creates the socket with mode 0600, and the directory with 0700 if it is missing. Replaces a
  /// socket that no process listens on; EADDRINUSE if one does.
  ///
  /// - Parameter directory: NUL-terminated, and valid as long as the listener.
  static func open(
    _ name: InterfaceName, in directory: UnsafePointer<CChar>
  ) throws(SystemError) -> UAPIListener {
    var file = clinux_uapi()
    try checked(name.withCString { clinux_uapi_open(directory, $0, &file) })
    return UAPIListener(file, directory, name)
  }

  /// Creates the socket in the directory that wg(8) uses.
  static func open(_ name: InterfaceName) throws(SystemError) -> UAPIListener {
    try open(name, in: path(defaultDirectory))
  }

  /// Takes ownership of a listening socket (WG_UAPI_FD). EINVAL if it is not listening.
  static func adopt(
    _ raw: Int32, _ name: InterfaceName, in directory: UnsafePointer<CChar>
  ) throws(SystemError) -> UAPIListener {
    var file = clinux_uapi()
    try checked(name.withCString { clinux_uapi_adopt(raw, directory, $0, &file) })
    return UAPIListener(file, directory, name)
  }

  static func adopt(_ raw: Int32, _ name: InterfaceName) throws(SystemError) -> UAPIListener {
    try adopt(raw, name, in: path(defaultDirectory))
  }

  /// For epoll: readable when a client connects.
  var raw: Int32 { listener.raw }

  /// For epoll: readable when the socket's file has changed. -1 without inotify; `isPresent` still
  /// works then.
  var rawWatch: Int32 { watch.raw }

  /// A new non-blocking connection; nil if no client is waiting, or if the process has no
  /// descriptors left.
  func accept() -> FileDescriptor? {
    let raw = clinux_uapi_accept(listener.raw)
    return raw < 0 ? nil : FileDescriptor(taking: raw)
  }

  /// Drains the watch, and returns whether the file is still the one that was bound. Deleting the
  /// file ends the process (R25), as with wireguard-go.
  func isPresent() -> Bool {
    withUnsafePointer(to: file) { file in
      name.withCString { clinux_uapi_is_present(file, directory, $0) } != 0
    }
  }

  /// Deletes the file, if it is still ours. For a clean exit.
  func remove() {
    withUnsafePointer(to: file) { file in
      _ = name.withCString { clinux_uapi_remove(file, directory, $0) }
    }
  }

  /// String literals are NUL-terminated.
  private static func path(_ text: StaticString) -> UnsafePointer<CChar> {
    UnsafeRawPointer(text.utf8Start).assumingMemoryBound(to: CChar.self)
  }
}
