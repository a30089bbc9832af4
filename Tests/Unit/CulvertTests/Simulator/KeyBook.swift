#if !ONE_MODULE
  @testable import Culvert
#endif

/// What an eavesdropper who knows every key sees on the wire: no counter is used twice under one
/// key, and the timestamps that a host sends to a peer grow.
final class KeyBook {
  private struct Pair: Hashable {
    var sender: Key
    var receiver: Key
  }

  private var privateKeys: [Key: [UInt8]] = [:]
  /// The product of the static keys, which takes long to compute.
  private var products: [Pair: [UInt8]] = [:]
  private var timestamps: [Pair: TAI64N] = [:]
  /// The last counter under each sending key, of which a part is enough.
  private var counters: [UInt64: UInt64] = [:]
  /// The peer that a receiver index was last seen to belong to, by host.
  private var peers: [UInt64: PeerID] = [:]
  /// The greatest timestamp of each host.
  private(set) var greatest: [Int: TAI64N] = [:]

  private let scratch = UnsafeMutableRawPointer.allocate(
    byteCount: SymmetricState.byteCount + 2 * WireGuard.keyByteCount, alignment: 16)
  private let constants = NoiseConstants()

  deinit { scratch.deallocate() }

  func add(_ privateKey: [UInt8], of publicKey: Key) { privateKeys[publicKey] = privateKey }

  static func publicKey(of privateKey: [UInt8]) -> Key {
    withUnsafeTemporaryAllocation(byteCount: WireGuard.keyByteCount, alignment: 8) { output in
      privateKey.withUnsafeBytes {
        X25519.publicKey(into: output.baseAddress!, secret: $0.baseAddress!)
      }
      return Key(at: output.baseAddress!)
    }
  }

  /// The host has lost its stored timestamp, so its clock decides what it sends next.
  func forgetTimestamps(from key: Key) {
    timestamps = timestamps.filter { $0.key.sender != key }
  }

  // MARK: Datagrams

  /// Looks at a datagram that the host's tunnel has just sealed.
  ///
  /// - Returns: what is wrong; nil if nothing is.
  func inspect(
    _ datagram: UnsafeRawBufferPointer, from host: SimulatedHost, at now: Instant
  ) -> String? {
    if !host.tunnel.isUp { return "a datagram from an interface that is down" }
    switch datagram[0] {
    case MessageType.transportData.rawValue: return inspectData(datagram, from: host, at: now)
    case MessageType.initiation.rawValue: return inspectInitiation(datagram, from: host)
    default: return nil
    }
  }

  private func inspectData(
    _ datagram: UnsafeRawBufferPointer, from host: SimulatedHost, at now: Instant
  ) -> String? {
    let start = datagram.baseAddress!
    let receiver = start.loadLittle(4, as: UInt32.self)
    let counter = start.loadLittle(8, as: UInt64.self)
    guard let id = sender(to: receiver, from: host) else { return "data without a session" }
    let session = host.tunnel.peers[id].keypairs.current
    if host.local(now).since(session.birth) >= WireGuard.rejectAfterTime {
      return "a session was used after its time"
    }
    let key = session.sendingKey.loadLittle(0, as: UInt64.self)
    if let last = counters[key], counter <= last { return "a nonce was used twice" }
    counters[key] = counter
    return nil
  }

  /// The peer whose current session has this remote index.
  private func sender(to receiver: UInt32, from host: SimulatedHost) -> PeerID? {
    let name = UInt64(host.number) << 32 | UInt64(receiver)
    if let id = peers[name], host.tunnel.peerTable.contains(id),
      host.tunnel.peers[id].keypairs.current.remoteIndex == receiver
    {
      return id
    }
    var found: PeerID?
    host.withPeers { peer in
      let current = peer.pointee.keypairs.current
      if current.exists, current.remoteIndex == receiver { found = peer.pointee.id }
    }
    peers[name] = found
    return found
  }

  private func inspectInitiation(
    _ datagram: UnsafeRawBufferPointer, from host: SimulatedHost
  ) -> String? {
    let index = datagram.baseAddress!.loadLittle(4, as: UInt32.self)
    guard let sender = host.tunnel.publicKey, let entry = host.tunnel.indices.find(index),
      let receiver = host.tunnel.status(of: entry.peer)?.publicKey
    else { return "an initiation without a handshake" }
    guard let privateKey = privateKeys[receiver] else { return nil }
    let pair = Pair(sender: sender, receiver: receiver)
    guard let stamp = timestamp(in: datagram, of: pair, privateKey: privateKey) else {
      return "an initiation that its peer cannot read"
    }
    if let last = timestamps[pair], stamp <= last { return "a timestamp did not grow" }
    timestamps[pair] = stamp
    greatest[host.number] = max(greatest[host.number] ?? .zero, stamp)
    return nil
  }

  private func timestamp(
    in datagram: UnsafeRawBufferPointer, of pair: Pair, privateKey: [UInt8]
  ) -> TAI64N? {
    let noise = SymmetricState(scratch: scratch)
    let copy = UnsafeMutableRawBufferPointer.allocate(byteCount: datagram.count, alignment: 16)
    defer { copy.deallocate() }
    copy.copyMemory(from: datagram)
    guard let message = InitiationMessage(at: copy.baseAddress!, byteCount: copy.count) else {
      return nil
    }
    noise.start(from: constants, responder: pair.receiver)
    noise.mixEphemeral(message.ephemeral)
    let isOpen = privateKey.withUnsafeBytes { secret in
      noise.mixDH(secret: secret.baseAddress!, point: message.ephemeral, keyed: true)
        && noise.decryptAndHash(
          message.encryptedStatic, byteCount: WireGuard.keyByteCount, into: noise.plaintext)
        && Key(at: noise.plaintext) == pair.sender
    }
    guard isOpen, let product = product(of: pair, privateKey) else { return nil }
    let isRead = product.withUnsafeBytes { product in
      noise.mixPrecomputed(product.baseAddress!)
        && noise.decryptAndHash(
          message.encryptedTimestamp, byteCount: WireGuard.timestampByteCount,
          into: noise.plaintext)
    }
    return isRead ? TAI64N(at: noise.plaintext) : nil
  }

  private func product(of pair: Pair, _ privateKey: [UInt8]) -> [UInt8]? {
    if let product = products[pair] { return product }
    let output = scratch + SymmetricState.byteCount
    let point = output + WireGuard.keyByteCount
    pair.sender.write(to: point)
    let isComputed = privateKey.withUnsafeBytes {
      X25519.multiply(into: output, secret: $0.baseAddress!, point: point)
    }
    guard isComputed else { return nil }
    let product = [UInt8](UnsafeRawBufferPointer(start: output, count: WireGuard.keyByteCount))
    products[pair] = product
    return product
  }
}
