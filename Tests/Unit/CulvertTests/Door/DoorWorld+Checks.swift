#if !ONE_MODULE
  @testable import Culvert
#endif

/// The promises that hold after every step.
extension DoorWorld {
  func check() {
    checkPools()
    checkIndices()
    checkSchedule()
    expect(!near.tunnel.allowedIPs.isStaging, "allowed IPs stay staged")
  }

  /// Every slot is free, in the handshake ring, or staged for a peer that exists.
  private func checkPools() {
    expect(
      near.tunnel.handshakePool.freeCount + near.tunnel.queuedHandshakes
        == DoorEnd.limits.handshakeRing, "a handshake slot is lost")
    var held = 0
    near.forEachPeer { held += $0.pointee.staged.heldSlots }
    expect(
      near.tunnel.stagingPool.freeCount + held == DoorEnd.limits.stagingSlots,
      "a staging slot is lost")
  }

  /// The index table holds exactly the peers' handshakes and keypairs.
  private func checkIndices() {
    var count = 0
    near.forEachPeer { peer in
      count += checkIndex(peer.pointee.handshake.localIndex, .handshake, peer)
      count += checkIndex(peer.pointee.keypairs.current.localIndex, .keypair, peer)
      count += checkIndex(peer.pointee.keypairs.previous.localIndex, .keypair, peer)
      count += checkIndex(peer.pointee.keypairs.next.localIndex, .keypair, peer)
    }
    expect(near.tunnel.indices.count == count, "the index table holds what no peer has")
  }

  private func checkIndex(
    _ index: UInt32, _ kind: IndexKind, _ peer: UnsafeMutablePointer<Peer>
  ) -> Int {
    guard index != 0 else { return 0 }
    let entry = near.tunnel.indices.find(index)
    expect(
      entry?.peer == peer.pointee.id && entry?.kind == kind.rawValue,
      "an index of a peer is not in the table")
    return 1
  }

  /// No timer is missed.
  private func checkSchedule() {
    guard near.tunnel.isUp else { return }
    let next = near.tunnel.nextDeadline(at: now)
    if next.isDue(at: now) { return }
    near.forEachPeer { peer in
      expect(!(peer.pointee.timers.next < next), "a timer is not in the schedule")
    }
  }

  /// After everything is removed, all memory is free again.
  func checkEmptied() {
    near.tunnel.setUp(false, at: now)
    near.tunnel.removeAllPeers()
    check()
    expect(near.tunnel.indices.count == 0, "indices outlive their peers")
    expect(near.tunnel.allowedIPs.count == 0, "allowed IPs outlive their peers")
    expect(
      near.tunnel.stagingPool.freeCount == DoorEnd.limits.stagingSlots
        && near.tunnel.handshakePool.freeCount == DoorEnd.limits.handshakeRing,
      "pools are not full again")
  }

  // MARK: Segments

  /// Runs end within the round, and are within the kernel's limits.
  func checkRuns() {
    let count = near.outbound.outputCount
    for index in 0..<count {
      for isUniform in [true, false] {
        let run = near.outbound.runLength(from: index, isUniform: isUniform)
        expect(
          run >= 1 && run <= BatchLayout.maximumSegments && index + run <= count,
          "a run that cannot be sent")
      }
    }
  }

  /// Joins the delivered packets: each is in one group, whose headers have the right length.
  func checkJoined() {
    var delivered = 0
    for index in 0..<near.inbound.count where near.inbound.delivered(index) != nil {
      delivered += 1
    }
    near.inbound.join(tcp: true, udp: true)
    var joined = 0
    for group in 0..<near.inbound.outputCount {
      let count = near.inbound.packetCount(of: group)
      joined += count
      var first: UnsafeMutableRawPointer?
      var byteCount = 0
      near.inbound.forEachPiece(of: group) { bytes, pieceByteCount in
        if first == nil { first = bytes }
        byteCount += pieceByteCount
      }
      guard let first else { continue }
      if count > 1 {
        _ = near.inbound.finish(group, virtioHeader: first - 16)
        expect(PacketOffload(virtioHeader: first - 16) != nil, "no kernel takes this header")
        joinedCount += 1
      }
      let inner = InnerPacket(at: first, byteCount: byteCount)
      expect(inner?.byteCount == byteCount, "a joined packet's length is wrong")
    }
    expect(joined == delivered, "a packet is lost or doubled in joining")
  }
}
