/// The parts of the arena that hold a tunnel's keys. Where several tunnels live in one arena, those
/// of all are carved first, so that they lie together in the pages that are locked:
///
///     let first = TunnelSecrets(carvingFrom: &arena, limits: limits)
///     let second = TunnelSecrets(carvingFrom: &arena, limits: limits)
///     arena.endSecrets()
///     var tunnel = Tunnel(carvingFrom: &arena, limits: limits, secrets: first)
public struct TunnelSecrets: ~Copyable {
  let identity: StaticIdentity
  let noise: SymmetricState
  let peers: UnsafeMutableRawPointer
  let batchKeys: UnsafeMutableRawPointer
  let cookieChecker: CookieChecker

  public init(carvingFrom arena: inout Arena, limits: Limits) {
    identity = StaticIdentity(carvingFrom: &arena)
    noise = SymmetricState(
      scratch: arena.carveBytes(SymmetricState.byteCount, owner: "secrets: handshake scratch")
        .baseAddress!)
    peers =
      arena.carveBytes(limits.peers * Tunnel.peerSecretByteCount, owner: "secrets: peers")
      .baseAddress!
    batchKeys =
      arena.carveBytes(
        limits.batches * limits.batchPackets * WireGuard.keyByteCount, owner: "secrets: batches"
      ).baseAddress!
    cookieChecker = CookieChecker(carvingFrom: &arena)
  }
}
