/// Changes to one peer's allowed IPs that take effect together or not at all: an error later in the
/// peer's section of a UAPI request must leave the peer as it was.
///
/// Staged prefixes are nodes in the trie that belong to nobody, so `route` ignores them, and the
/// commit cannot fail for lack of room.
extension AllowedIPs {
  var isStaging: Bool { staging.first != 0 || staging.replacesAll }

  /// Stages that `prefix` is assigned to the peer (`add`) or removed from it. The last change
  /// staged for a prefix counts.
  ///
  /// - Returns: false, with nothing changed, if the table is full.
  mutating func stage(_ prefix: IPPrefix, add: Bool) -> Bool {
    // A prefix that nobody has need not be removed.
    let index = add ? place(prefix) : find(prefix)
    guard index != 0 else { return !add }
    guard add || nodes[index].isHeld else { return true }
    if nodes[index].action == .none {
      if staging.last == 0 {
        staging.first = index
      } else {
        links[staging.last].nextStaged = index
      }
      staging.last = index
    }
    nodes[index].action = add ? .add : .remove
    return true
  }

  /// Stages that all the peer's prefixes are removed first, and forgets what was staged before.
  mutating func stageReplaceAll() {
    abandonStaged()
    staging.replacesAll = true
  }

  /// Applies to `peer` what was staged; cannot fail. Takes time linear in what was staged and,
  /// after `stageReplaceAll`, in the peer's prefixes.
  mutating func commitStaged(to peer: UInt32) {
    if staging.replacesAll { removeAll(peer: peer) }
    var index = staging.first
    while index != 0 {
      let action = nodes[index].action
      let next = unstage(index)
      switch action {
      case .add: assign(index, to: peer)
      case .remove: if nodes[index].peer == peer { unassign(index) }
      case .none: break
      }
      releaseIfUnheld(index)
      index = next
    }
    staging = AllowedIPStaging()
  }

  /// Forgets what was staged.
  mutating func abandonStaged() {
    var index = staging.first
    while index != 0 {
      let next = unstage(index)
      releaseIfUnheld(index)
      index = next
    }
    staging = AllowedIPStaging()
  }

  /// Clears a node's mark and returns the node staged after it.
  private func unstage(_ index: UInt32) -> UInt32 {
    let next = links[index].nextStaged
    links[index].nextStaged = 0
    nodes[index].action = .none
    return next
  }
}

/// What has been staged for one peer and not yet committed.
struct AllowedIPStaging: BitwiseCopyable {
  /// The ends of the list of staged nodes, 0 for none.
  var first: UInt32 = 0
  var last: UInt32 = 0
  /// The commit first removes all prefixes from the peer.
  var replacesAll = false
}
