/// Changes to one peer's allowed IPs that take effect together or not at all. An error later in the
/// peer's section of a UAPI request must leave the peer unchanged.
///
/// A staged prefix has a node in the trie. The node gets its new owner only at the commit, so
/// `route` ignores the change until then, and the commit cannot fail for lack of room.
extension AllowedIPs {
  var isStaging: Bool { staging.first != 0 || staging.replacesAll }

  /// Stages a change: `prefix` is assigned to the peer (`add`) or removed from it. If several
  /// changes are staged for a prefix, the last one counts.
  ///
  /// - Returns: false, with nothing changed, if the table is full.
  mutating func stage(_ prefix: IPPrefix, add: Bool) -> Bool {
    // A prefix without an owner does not have to be removed.
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

  /// Stages the removal of all the peer's prefixes, and discards what was staged before.
  mutating func stageReplaceAll() {
    abandonStaged()
    staging.replacesAll = true
  }

  /// Applies the staged changes to `peer`. Cannot fail. Takes time linear in the number of staged
  /// changes and, after `stageReplaceAll`, of the peer's prefixes.
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

  /// Discards the staged changes.
  mutating func abandonStaged() {
    var index = staging.first
    while index != 0 {
      let next = unstage(index)
      releaseIfUnheld(index)
      index = next
    }
    staging = AllowedIPStaging()
  }

  /// Clears a node's staged action, and returns the next staged node.
  private func unstage(_ index: UInt32) -> UInt32 {
    let next = links[index].nextStaged
    links[index].nextStaged = 0
    nodes[index].action = .none
    return next
  }
}

/// The changes that have been staged for one peer and not yet committed.
struct AllowedIPStaging: BitwiseCopyable {
  /// The ends of the list of staged nodes; 0 for none.
  var first: UInt32 = 0
  var last: UInt32 = 0
  /// Whether the commit first removes all prefixes of the peer.
  var replacesAll = false
}
