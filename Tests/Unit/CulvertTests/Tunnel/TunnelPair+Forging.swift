@testable import Culvert

/// Datagrams that no honest tunnel sends, made with a's keys.
extension TunnelPair {
  /// Transport data of a's current session with any plaintext at all, correctly sealed.
  func sealAsA(_ text: [UInt8]) -> Arrival {
    let peer = a.tunnel.peer(peerOfA)!
    let counter = peer.pointee.keypairs.reserveCounters(1)
    var bytes = [UInt8](repeating: 0, count: text.count + WireGuard.overheadByteCount)
    bytes.withUnsafeMutableBytes { bytes in
      let start = bytes.baseAddress!
      TransportDataMessage.writeHeader(
        to: start, receiver: peer.pointee.keypairs.current.remoteIndex, counter: counter)
      for (index, byte) in text.enumerated() { start.storeByte(byte, 16 + index) }
      AEAD.seal(
        start + 16, byteCount: text.count, counter: counter,
        key: peer.pointee.keypairs.current.sendingKey)
    }
    return Arrival(bytes, from: a.endpoint)
  }

  /// An initiation of a's, regardless of when it sent the last one.
  func initiationFromA() -> Emission? {
    let peer = a.tunnel.peer(peerOfA)!
    peer.pointee.timers.forgetInitiation()
    peer.pointee.timers.wantInitiation(at: now)
    a.tunnel.reschedule(&peer.pointee)
    return a.settle(at: now, wall: wall).first { $0.type == 1 }
  }

  /// The message with its mac1 made right for a receiver with this public key.
  static func withMAC1(_ message: [UInt8], for receiver: Key) -> [UInt8] {
    var message = message
    var key = [UInt8](repeating: 0, count: 32)
    key.withUnsafeMutableBytes { key in
      Cookie.deriveMAC1Key(into: key.baseAddress!, publicKey: receiver)
      message.withUnsafeMutableBytes { bytes in
        Cookie.computeMAC1(
          into: bytes.baseAddress! + (bytes.count - 32), message: bytes.baseAddress!,
          byteCount: bytes.count, key: key.baseAddress!)
      }
    }
    return message
  }

  /// A place that neither tunnel is at.
  static var elsewhere: Endpoint { Endpoint(address: ipv4(203, 0, 113, 9), port: 9) }
}
