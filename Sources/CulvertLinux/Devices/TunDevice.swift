import CLinux
import Culvert

/// The TUN interface, from which IP packets are read and to which they are written. The kernel's
/// packet information (PI) header is off. Virtio headers are on if checksum or segmentation
/// offloads are wanted.
///
/// The interface exists as long as this value, unless it is persistent. Reads and writes return
/// -errno and never throw. Everything else is for setup and the control path.
struct TunDevice: ~Copyable {
  private let device: FileDescriptor
  /// A socket for the interface ioctls, in the interface's network namespace.
  private var control: FileDescriptor

  /// Bytes of the virtio header before each packet: 0 if there is none, otherwise 10 to 16. The
  /// header lies in the packet's headroom.
  let headerByteCount: Int
  /// The offloads in use in both directions: of checksum, tso and uso.
  private(set) var offloads = Offloads.none
  /// The offloads with which joined packets may be written: of tso and uso.
  private(set) var joining = Offloads.none

  /// The maximum size of the virtio header before a packet. The batches leave more room than this.
  static let headroom = 16

  private init(
    device: consuming FileDescriptor, headerByteCount: Int = 0
  ) throws(SystemError) {
    // The throwing call must be first: Swift 6.2's optimizer cannot destroy a partially initialised
    // value.
    control = FileDescriptor(taking: try checked(clinux_link_open(-1)))
    self.device = device
    self.headerByteCount = headerByteCount
  }

  private init() {
    device = .none
    control = .none
    headerByteCount = 0
  }

  /// No interface: every call fails with EBADF. All hops except the innermost use this value.
  static var none: TunDevice { TunDevice() }

  @inline(__always)
  var isOpen: Bool { device.isOpen }

  /// Creates the interface, or attaches to a persistent one that no process uses, and sets its MTU
  /// (1420, as wireguard-go does). EBUSY if another process uses it, EINVAL if it is not a TUN;
  /// `Privileges.advice` explains EPERM and ENOENT.
  ///
  /// - Parameter wanted: offloads to use if the kernel supports them.
  static func create(
    _ name: InterfaceName, mtu: UInt32 = UInt32(Policy.defaultMTU), offloads wanted: Offloads
  ) throws(SystemError) -> TunDevice {
    var hasHeader = wanted.contains(.checksum)
    let features = UInt32(CLINUX_TUN_VNET_HDR)
    var raw = name.withCString { clinux_tun_open($0, hasHeader ? features : 0) }
    if hasHeader, raw == -SystemError.EINVAL.code {
      // Either the kernel lacks virtio headers or this is not a TUN. A second attempt shows which.
      hasHeader = false
      raw = name.withCString { clinux_tun_open($0, 0) }
    }
    let device = FileDescriptor(taking: try checked(raw))
    let headerByteCount = hasHeader ? try TunDevice.headerByteCount(of: device.raw) : 0
    var tun = try TunDevice(device: device, headerByteCount: headerByteCount)
    tun.setOffloads(wanted)
    do throws(SystemError) {
      try tun.setMTU(mtu)
    } catch {
      // A user may be allowed to attach to a persistent interface, but not to change it. Its MTU
      // then stays as it is.
      if error != .EPERM { throw error }
    }
    return tun
  }

  /// Takes ownership of a descriptor of /dev/net/tun that is attached to an interface (WG_TUN_FD).
  /// EINVAL if it is a TAP, or if packet information precedes the packets. The MTU and the use of
  /// virtio headers are not changed; without these headers there are no offloads.
  static func adopt(
    _ raw: Int32, offloads wanted: Offloads
  ) throws(SystemError) -> TunDevice {
    try checked(clinux_file_adopt(raw))
    let device = FileDescriptor(taking: raw)
    let flags = try TunDevice.identify(raw).flags
    let isPlain = flags & UInt32(CLINUX_TUN_TUN) != 0 && flags & UInt32(CLINUX_TUN_NO_PI) != 0
    if !isPlain { throw .EINVAL }
    let hasHeader = flags & UInt32(CLINUX_TUN_VNET_HDR) != 0
    let headerByteCount = hasHeader ? try TunDevice.headerByteCount(of: raw) : 0
    var tun = try TunDevice(device: device, headerByteCount: headerByteCount)
    tun.setOffloads(wanted)
    // The interface may be in another namespace. Linux before 5.0 cannot report which; it is then
    // assumed to be in ours.
    _ = try? tun.followNamespace()
    return tun
  }

  private static func headerByteCount(of raw: Int32) throws(SystemError) -> Int {
    let byteCount = Int(try checked(clinux_tun_header_byte_count(raw)))
    if byteCount < PacketOffload.virtioHeaderByteCount || byteCount > TunDevice.headroom {
      throw .EINVAL
    }
    return byteCount
  }

  deinit {
    // A persistent interface outlives this process, and its next user may not expect segments.
    if !offloads.isEmpty { _ = clinux_tun_set_offloads(device.raw, 0) }
  }

  /// Enables as many of the wanted offloads as the kernel supports.
  private mutating func setOffloads(_ wanted: Offloads) {
    guard headerByteCount > 0 else {
      // A persistent interface may still have the offloads of its last user. Packets that still
      // have to be segmented would then arrive without a header that marks them.
      _ = clinux_tun_set_offloads(device.raw, 0)
      return
    }
    var candidate = wanted.intersection([.checksum, .tso, .uso]).consistent
    while true {
      var flags: UInt32 = 0
      if candidate.contains(.checksum) { flags |= UInt32(CLINUX_TUN_CHECKSUM) }
      if candidate.contains(.tso) { flags |= UInt32(CLINUX_TUN_TSO) }
      if candidate.contains(.uso) { flags |= UInt32(CLINUX_TUN_USO) }
      if clinux_tun_set_offloads(device.raw, flags) == 0 {
        offloads = candidate
        joining = candidate.intersection([.tso, .uso])
        return
      }
      if candidate.isEmpty { return }
      // Linux before 6.2 lacks USO. If something else is refused, use none, which is always
      // allowed.
      candidate = candidate.contains(.uso) ? candidate.subtracting(.uso) : .none
    }
  }

  /// Stops writing joined packets, after the kernel has refused one.
  mutating func stopJoining(_ offload: Offloads) {
    joining.subtract(offload)
  }

  // MARK: Data path

  /// For epoll.
  @inline(__always)
  var raw: Int32 { device.raw }

  /// A packet that was read.
  struct Packet: BitwiseCopyable, Sendable {
    /// Bytes, or -errno: -EAGAIN if there is no packet, -EBADFD after the interface was deleted.
    var byteCount: Int
    var offload: PacketOffload
  }

  /// Reads one packet. The kernel silently truncates packets that exceed the buffer, so it must
  /// hold the largest packet. A packet with an invalid virtio header is returned with a byte count
  /// of 0.
  ///
  /// - Parameter buffer: has `headroom` writable bytes before it.
  @inline(__always)
  func read(into buffer: UnsafeMutableRawBufferPointer) -> Packet {
    if headerByteCount == 0 {
      return Packet(byteCount: device.read(into: buffer), offload: .none)
    }
    let header = buffer.baseAddress! - headerByteCount
    let count = device.read(
      into: UnsafeMutableRawBufferPointer(start: header, count: buffer.count + headerByteCount))
    guard count >= headerByteCount else {
      return Packet(byteCount: min(count, 0), offload: .none)
    }
    guard let offload = PacketOffload(virtioHeader: header) else {
      return Packet(byteCount: 0, offload: .none)
    }
    return Packet(byteCount: count - headerByteCount, offload: offload)
  }

  /// Writes one packet. Returns its byte count, or -errno: -EIO while the interface is down,
  /// -EINVAL if the first four bits are neither 4 nor 6.
  ///
  /// - Parameter packet: has `headroom` writable bytes before it.
  @inline(__always)
  func write(_ packet: UnsafeMutableRawBufferPointer) -> Int {
    if headerByteCount == 0 { return device.write(UnsafeRawBufferPointer(packet)) }
    // A header of zeros requests no offload.
    let start = packet.baseAddress! - headerByteCount
    start.initializeMemory(as: UInt8.self, repeating: 0, count: headerByteCount)
    let count = device.write(
      UnsafeRawBufferPointer(start: start, count: packet.count + headerByteCount))
    return count < 0 ? count : max(0, count - headerByteCount)
  }

  /// Writes joined packets in one call. Returns -errno if the kernel refuses them; it then delivers
  /// none of them.
  ///
  /// - Parameter pieces: the first begins with the virtio header.
  @inline(__always)
  func write(pieces: UnsafePointer<clinux_slice>, count: Int) -> Int {
    clinux_file_write_pieces(device.raw, pieces, Int32(truncatingIfNeeded: count))
  }

  // MARK: Control path

  /// False once the interface has been deleted. Still true after a move to another namespace.
  var isAttached: Bool {
    do throws(SystemError) {
      _ = try TunDevice.identify(device.raw)
      return true
    } catch {
      return error != .EBADFD
    }
  }

  /// The current name; interfaces can be renamed. EBADFD after deletion.
  func name() throws(SystemError) -> InterfaceName {
    try TunDevice.identify(device.raw).name
  }

  /// Whether the interface remains when this process exits.
  func isPersistent() throws(SystemError) -> Bool {
    try TunDevice.identify(device.raw).flags & UInt32(CLINUX_TUN_PERSISTENT) != 0
  }

  /// Unique within the interface's network namespace; a move to another may change it.
  func interfaceIndex() throws(SystemError) -> UInt32 {
    var index: UInt32 = 0
    try checked(try name().withCString { clinux_link_index(control.raw, $0, &index) })
    return index
  }

  /// The current name, MTU and up flag: for start-up, and after lost netlink events.
  func state() throws(SystemError) -> LinkState {
    let name = try name()
    var mtu: UInt32 = 0
    try checked(name.withCString { clinux_link_mtu(control.raw, $0, &mtu) })
    let isUp = try checked(name.withCString { clinux_link_is_up(control.raw, $0) }) != 0
    return LinkState(name: name, mtu: mtu, isUp: isUp)
  }

  /// EINVAL outside 68-65535, EPERM without CAP_NET_ADMIN.
  func setMTU(_ mtu: UInt32) throws(SystemError) {
    try checked(try name().withCString { clinux_link_set_mtu(control.raw, $0, mtu) })
  }

  func setUp(_ isUp: Bool) throws(SystemError) {
    try checked(try name().withCString { clinux_link_set_up(control.raw, $0, isUp ? 1 : 0) })
  }

  /// A descriptor of the interface's network namespace, for `Netlink.open`. Needs Linux 5.0, and
  /// CAP_NET_ADMIN in that namespace.
  func namespaceDescriptor() throws(SystemError) -> FileDescriptor {
    FileDescriptor(taking: try checked(clinux_tun_namespace(device.raw)))
  }

  /// Whether the interface is known to be in another namespace than this thread.
  var isElsewhere: Bool {
    guard isOpen, let namespace = try? namespaceDescriptor() else { return false }
    return clinux_namespace_is_own(namespace.raw) == 0
  }

  /// Moves the control path to the interface's current namespace, and returns a descriptor of that
  /// namespace. After an error (EPERM without CAP_SYS_ADMIN) packets still flow, but the MTU and
  /// the up flag are no longer known.
  mutating func followNamespace() throws(SystemError) -> FileDescriptor {
    let namespace = try namespaceDescriptor()
    control = FileDescriptor(taking: try checked(clinux_link_open(namespace.raw)))
    return namespace
  }

  private static func identify(
    _ raw: Int32
  ) throws(SystemError) -> (name: InterfaceName, flags: UInt32) {
    var bytes: (UInt64, UInt64) = (0, 0)
    var flags: UInt32 = 0
    let result = withUnsafeMutableBytes(of: &bytes) {
      clinux_tun_identify(raw, $0.baseAddress!.assumingMemoryBound(to: CChar.self), &flags)
    }
    try checked(result)
    return (withUnsafeBytes(of: &bytes) { InterfaceName(trusting: $0) }, flags)
  }
}
