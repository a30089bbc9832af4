/// `struct virtio_net_hdr`, which stands before each packet of a TUN opened with IFF_VNET_HDR
/// (virtio 1.2 section 5.1.6, without the `num_buffers` that a TUN leaves out):
///
///     | flags 1 | gso_type 1 | hdr_len 2 | gso_size 2 | csum_start 2 | csum_offset 2 |
///
/// The numbers are in the machine's own byte order.
enum VirtioHeader {
  static let byteCount = 10

  static let flagsOffset = 0
  static let typeOffset = 1
  static let headerByteCountOffset = 2
  static let segmentByteCountOffset = 4
  static let checksumStartOffset = 6
  static let checksumOffsetOffset = 8

  /// VIRTIO_NET_HDR_F_NEEDS_CSUM. The other flags say that a checksum was verified on the way.
  static let needsChecksumFlag: UInt8 = 1

  /// VIRTIO_NET_HDR_GSO_NONE and its siblings. 3 is fragmentation of UDP, which nobody asks for.
  static let wholeType: UInt8 = 0
  static let tcpIPv4Type: UInt8 = 1
  static let tcpIPv6Type: UInt8 = 4
  static let udpType: UInt8 = 5
  /// VIRTIO_NET_HDR_GSO_ECN: the first segment may have CWR set. Only beside a TCP type.
  static let congestionFlag: UInt8 = 0x80
}
