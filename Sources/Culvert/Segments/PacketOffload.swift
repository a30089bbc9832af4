/// The work that is left to the reader of a packet: segmentation and the transport checksum. The
/// reader is Culvert for packets from the TUN, and the kernel for packets to it. A `VirtioHeader`
/// carries this information.
public struct PacketOffload: BitwiseCopyable, Sendable {
  public enum Segmentation: UInt8, BitwiseCopyable, Sendable {
    case none
    case tcpIPv4
    case tcpIPv6
    case udp
  }

  public var segmentation: Segmentation
  /// The checksum field holds the sum of the pseudo-header, and the rest must be added.
  public var needsChecksum: Bool
  private var start: UInt16
  private var offset: UInt16
  private var size: UInt16

  public static let virtioHeaderByteCount = VirtioHeader.byteCount

  /// A whole packet with its checksum.
  @inline(__always)
  public static var none: PacketOffload {
    PacketOffload(
      segmentation: .none, needsChecksum: false, checksumStart: 0, checksumOffset: 0,
      segmentByteCount: 0)
  }

  /// All numbers are below 65536.
  @inline(__always)
  init(
    segmentation: Segmentation, needsChecksum: Bool, checksumStart: Int, checksumOffset: Int,
    segmentByteCount: Int
  ) {
    self.segmentation = segmentation
    self.needsChecksum = needsChecksum
    start = UInt16(truncatingIfNeeded: checksumStart)
    offset = UInt16(truncatingIfNeeded: checksumOffset)
    size = UInt16(truncatingIfNeeded: segmentByteCount)
  }

  /// Reads the `virtioHeaderByteCount` bytes before a packet. Nil for a type that was not
  /// requested, and for segments of size 0 or without a checksum to compute (virtio 1.2 section
  /// 5.1.6.2). `Segmenter` verifies that the result matches the packet.
  @inline(__always)
  public init?(virtioHeader: UnsafeRawPointer) {
    let type = virtioHeader.byte(VirtioHeader.typeOffset)
    let needsChecksum =
      virtioHeader.byte(VirtioHeader.flagsOffset) & VirtioHeader.needsChecksumFlag != 0
    if type == VirtioHeader.wholeType {
      guard needsChecksum else {
        self = .none
        return
      }
      self.init(reading: virtioHeader, .none, segmentByteCount: 0)
      return
    }
    let size = virtioHeader.loadUnaligned(
      fromByteOffset: VirtioHeader.segmentByteCountOffset, as: UInt16.self)
    guard needsChecksum, size > 0 else { return nil }
    let segmentation: Segmentation
    switch type {
    case VirtioHeader.tcpIPv4Type, VirtioHeader.tcpIPv4Type | VirtioHeader.congestionFlag:
      segmentation = .tcpIPv4
    case VirtioHeader.tcpIPv6Type, VirtioHeader.tcpIPv6Type | VirtioHeader.congestionFlag:
      segmentation = .tcpIPv6
    case VirtioHeader.udpType: segmentation = .udp
    default: return nil
    }
    self.init(reading: virtioHeader, segmentation, segmentByteCount: Int(size))
  }

  /// Reads the header of a packet whose checksum must be computed.
  @inline(__always)
  private init(
    reading header: UnsafeRawPointer, _ segmentation: Segmentation, segmentByteCount: Int
  ) {
    self.segmentation = segmentation
    needsChecksum = true
    start = header.loadUnaligned(
      fromByteOffset: VirtioHeader.checksumStartOffset, as: UInt16.self)
    offset = header.loadUnaligned(
      fromByteOffset: VirtioHeader.checksumOffsetOffset, as: UInt16.self)
    size = UInt16(truncatingIfNeeded: segmentByteCount)
  }

  /// True if nothing is left to do.
  @inline(__always)
  public var isNone: Bool { !needsChecksum && segmentation == .none }

  /// The offset in the packet of the first byte that the checksum covers: the transport header.
  @inline(__always)
  public var checksumStart: Int {
    get { Int(start) }
    set { start = UInt16(truncatingIfNeeded: newValue) }
  }

  /// The offset of the checksum field from `checksumStart`.
  @inline(__always)
  public var checksumOffset: Int {
    get { Int(offset) }
    set { offset = UInt16(truncatingIfNeeded: newValue) }
  }

  /// Payload bytes of each segment but the last, which may have fewer; 0 for a whole packet.
  @inline(__always)
  public var segmentByteCount: Int {
    get { Int(size) }
    set { size = UInt16(truncatingIfNeeded: newValue) }
  }

  /// Writes the `virtioHeaderByteCount` bytes.
  /// - Parameter headerByteCount: bytes of all headers, transport included; the kernel needs it for
  ///   segmentation.
  @inline(__always)
  public func write(to virtioHeader: UnsafeMutableRawPointer, headerByteCount: Int) {
    let type: UInt8 =
      switch segmentation {
      case .none: VirtioHeader.wholeType
      case .tcpIPv4: VirtioHeader.tcpIPv4Type
      case .tcpIPv6: VirtioHeader.tcpIPv6Type
      case .udp: VirtioHeader.udpType
      }
    virtioHeader.storeByte(
      needsChecksum ? VirtioHeader.needsChecksumFlag : 0, VirtioHeader.flagsOffset)
    virtioHeader.storeByte(type, VirtioHeader.typeOffset)
    virtioHeader.storeBytes(
      of: UInt16(truncatingIfNeeded: headerByteCount),
      toByteOffset: VirtioHeader.headerByteCountOffset, as: UInt16.self)
    virtioHeader.storeBytes(
      of: size, toByteOffset: VirtioHeader.segmentByteCountOffset, as: UInt16.self)
    virtioHeader.storeBytes(
      of: start, toByteOffset: VirtioHeader.checksumStartOffset, as: UInt16.self)
    virtioHeader.storeBytes(
      of: offset, toByteOffset: VirtioHeader.checksumOffsetOffset, as: UInt16.self)
  }
}

/// `struct virtio_net_hdr`, which precedes each packet of a TUN opened with IFF_VNET_HDR (virtio
/// 1.2 section 5.1.6, without `num_buffers`, which a TUN omits):
///
///     | flags 1 | gso_type 1 | hdr_len 2 | gso_size 2 | csum_start 2 | csum_offset 2 |
///
/// The numbers are in native byte order.
enum VirtioHeader {
  static let byteCount = 10

  static let flagsOffset = 0
  static let typeOffset = 1
  static let headerByteCountOffset = 2
  static let segmentByteCountOffset = 4
  static let checksumStartOffset = 6
  static let checksumOffsetOffset = 8

  /// VIRTIO_NET_HDR_F_NEEDS_CSUM. Other flags mean that a checksum has been verified.
  static let needsChecksumFlag: UInt8 = 1

  /// VIRTIO_NET_HDR_GSO_NONE and so on. 3 is fragmentation of UDP, which is never requested.
  static let wholeType: UInt8 = 0
  static let tcpIPv4Type: UInt8 = 1
  static let tcpIPv6Type: UInt8 = 4
  static let udpType: UInt8 = 5
  /// VIRTIO_NET_HDR_GSO_ECN: the first segment may have CWR set. Only combined with a TCP type.
  static let congestionFlag: UInt8 = 0x80
}
