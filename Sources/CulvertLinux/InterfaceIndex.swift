import CLinux
import Culvert

/// Interface names in endpoints (`fe80::1%eth0`), resolved in the namespace that the sockets are
/// in.
enum InterfaceIndex {
  /// The index of the interface with this name; nil where there is none.
  static func find(_ bytes: UnsafeRawBufferPointer) -> UInt32? {
    guard let name = InterfaceName(bytes) else { return nil }
    let control = FileDescriptor(taking: clinux_link_open(-1))
    guard control.isOpen else { return nil }
    var index: UInt32 = 0
    let result = name.withCString { clinux_link_index(control.raw, $0, &index) }
    return result < 0 ? nil : index
  }
}
