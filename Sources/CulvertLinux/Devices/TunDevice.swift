import CLinux
import Culvert

/// The TUN interface: IP packets in and out, without packet information, and with virtio headers
/// where the kernel is to leave segments and checksums to us.
///
/// The interface lives as long as this value, unless it is persistent. Reads and writes return
/// -errno and never throw; the rest is for set-up and for the control path.
public struct TunDevice: ~Copyable {
  private let device: FileDescriptor
  /// Takes the interface ioctls, in the namespace that the interface is in.
  private var control: FileDescriptor

  /// Bytes of the virtio header before each packet: 0 where there is none, else 10 to 16. The
  /// header lies in the packet's headroom.
  public let headerByteCount: Int
  /// What the kernel leaves to us, and takes from us: of checksum, tso and uso.
  public private(set) var offloads = Offloads.none
  /// Of tso and uso: what may be written joined.
  public private(set) var joining = Offloads.none

  private init(
    device: consuming FileDescriptor, headerByteCount: Int = 0
  ) throws(SystemError) {
    // First what may throw: Swift 6.2's optimizer gives up at a value that it must undo in part.
    control = FileDescriptor(taking: try checked(clinux_link_open(-1)))
    self.device = device
    self.headerByteCount = headerByteCount
  }

  @inline(__always)
  var isOpen: Bool { device.isOpen }

  /// No interface: every call gives EBADF. What the tunnels around the innermost have.
  static var none: TunDevice { TunDevice() }

  private init() {
    device = .none
    control = .none
    headerByteCount = 0
  }

  /// Creates the interface, or attaches to a persistent one that nobody uses, and sets its MTU
  /// (1420 as wireguard-go does). EBUSY where another process has it, EINVAL where it is no TUN;
  /// EPERM and ENOENT are explained by `Privileges.advice`.
  ///
  /// - Parameter wanted: offloads to use, as far as the kernel has them.
  public static func create(
    _ name: InterfaceName, mtu: UInt32 = UInt32(Policy.defaultMTU), offloads wanted: Offloads
  ) throws(SystemError) -> TunDevice {
    var hasHeader = wanted.contains(.checksum)
    let features = UInt32(CLINUX_TUN_VNET_HDR)
    var raw = name.withCString { clinux_tun_open($0, hasHeader ? features : 0) }
    if hasHeader, raw == -SystemError.EINVAL.code {
      // A kernel without virtio headers, or no TUN at all, which the second answer tells.
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
      // Whoever may only attach to a persistent interface may not change it, and lives with its
      // MTU.
      if error != .EPERM { throw error }
    }
    return tun
  }

  /// Takes over a descriptor of /dev/net/tun that is attached to an interface (WG_TUN_FD). EINVAL
  /// where it is a TAP or puts the kernel's packet information before the packets. The MTU is left
  /// as it is, and so is whether there are virtio headers: without them there are no offloads.
  public static func adopt(
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
    // It may have been handed over from another namespace; where that cannot be told (Linux
    // before 5.0) it is taken to be in ours.
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
    // A persistent interface outlives us; whoever comes next may not expect segments.
    if !offloads.isEmpty { _ = clinux_tun_set_offloads(device.raw, 0) }
  }

  /// As many of the wanted offloads as the kernel takes.
  private mutating func setOffloads(_ wanted: Offloads) {
    guard headerByteCount > 0 else {
      // A persistent interface may still have those of the process before us, whose segments
      // would come as one packet without a word about it.
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
      // Linux before 6.2 lacks USO. Whatever else is refused, nothing at all is not.
      candidate = candidate.contains(.uso) ? candidate.subtracting(.uso) : .none
    }
  }

  /// The kernel did not take joined packets: from now on each goes alone.
  public mutating func stopJoining(_ offload: Offloads) {
    joining.subtract(offload)
  }

  /// What `headerByteCount` and the virtio header may take before a packet; the batches have more.
  public static let headroom = 16

  // MARK: Data path

  /// For epoll.
  @inline(__always)
  public var raw: Int32 { device.raw }

  /// A packet that was read.
  public struct Packet: BitwiseCopyable, Sendable {
    /// Or -errno: -EAGAIN when there is none, -EBADFD after deletion.
    public var byteCount: Int
    public var offload: PacketOffload
  }

  /// One packet. A packet longer than the buffer is cut without a sign, so the buffer holds the
  /// largest. One whose virtio header makes no sense is given as one of no bytes.
  ///
  /// - Parameter buffer: has `headroom` writable bytes before it.
  @inline(__always)
  public func read(into buffer: UnsafeMutableRawBufferPointer) -> Packet {
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

  /// One packet. Its byte count, or -errno: -EIO while the interface is down, -EINVAL where the
  /// first four bits are neither 4 nor 6.
  ///
  /// - Parameter packet: has `headroom` writable bytes before it.
  @inline(__always)
  public func write(_ packet: UnsafeMutableRawBufferPointer) -> Int {
    if headerByteCount == 0 { return device.write(UnsafeRawBufferPointer(packet)) }
    // No offload is asked for: the zero header.
    let start = packet.baseAddress! - headerByteCount
    start.initializeMemory(as: UInt8.self, repeating: 0, count: headerByteCount)
    let count = device.write(
      UnsafeRawBufferPointer(start: start, count: packet.count + headerByteCount))
    return count < 0 ? count : max(0, count - headerByteCount)
  }

  /// Joined packets as one. -errno where they are refused; none of them is then delivered.
  ///
  /// - Parameter pieces: the first with the virtio header before it.
  @inline(__always)
  public func write(pieces: UnsafePointer<clinux_slice>, count: Int) -> Int {
    clinux_file_write_pieces(device.raw, pieces, Int32(truncatingIfNeeded: count))
  }

  // MARK: Control path

  /// False once the interface was deleted; a move to another namespace leaves it true.
  public var isAttached: Bool {
    do throws(SystemError) {
      _ = try TunDevice.identify(device.raw)
      return true
    } catch {
      return error != .EBADFD
    }
  }

  /// The present name; interfaces can be renamed. EBADFD after deletion.
  public func name() throws(SystemError) -> InterfaceName {
    try TunDevice.identify(device.raw).name
  }

  /// True where the interface stays when this process ends.
  public func isPersistent() throws(SystemError) -> Bool {
    try TunDevice.identify(device.raw).flags & UInt32(CLINUX_TUN_PERSISTENT) != 0
  }

  /// Unique within the namespace that the interface is in; a move may change it.
  public func interfaceIndex() throws(SystemError) -> UInt32 {
    var index: UInt32 = 0
    try checked(try name().withCString { clinux_link_index(control.raw, $0, &index) })
    return index
  }

  /// Name, MTU and flag as they are now: after start, and after lost netlink events.
  public func state() throws(SystemError) -> LinkState {
    let name = try name()
    var mtu: UInt32 = 0
    try checked(name.withCString { clinux_link_mtu(control.raw, $0, &mtu) })
    let isUp = try checked(name.withCString { clinux_link_is_up(control.raw, $0) }) != 0
    return LinkState(name: name, mtu: mtu, isUp: isUp)
  }

  /// EINVAL outside 68-65535, EPERM without CAP_NET_ADMIN.
  public func setMTU(_ mtu: UInt32) throws(SystemError) {
    try checked(try name().withCString { clinux_link_set_mtu(control.raw, $0, mtu) })
  }

  public func setUp(_ isUp: Bool) throws(SystemError) {
    try checked(try name().withCString { clinux_link_set_up(control.raw, $0, isUp ? 1 : 0) })
  }

  /// Descriptor of the network namespace that the interface is in: for `Netlink.open`. Needs
  /// Linux 5.0 and CAP_NET_ADMIN there.
  public func namespaceDescriptor() throws(SystemError) -> FileDescriptor {
    FileDescriptor(taking: try checked(clinux_tun_namespace(device.raw)))
  }

  /// Makes the control path work in the namespace that the interface was moved to, and returns a
  /// descriptor of that. On an error (EPERM without CAP_SYS_ADMIN) packets still flow; the MTU and
  /// the flag are no longer known.
  public mutating func followNamespace() throws(SystemError) -> FileDescriptor {
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
