/// Changes of one peer's allowed IPs that take effect together or not at all: a mistake further
/// down in the peer's section of a UAPI request must leave the peer as it was.
///
/// Staged prefixes stand in the trie as nodes that belong to nobody, so `route` does not see them
/// and the commit needs no room that it might not get.
extension AllowedIPs {
  var isStaging: Bool { staging.first != 0 || staging.replacesAll }

  /// Notes that `prefix` is to be given to the peer (`add`) or taken from it. What is staged last
  /// for a prefix counts. False: the table is full, and nothing has changed.
  mutating func stage(_ prefix: IPPrefix, add: Bool) -> Bool {
    // A prefix that nobody has need not be taken from anybody.
    let index = add ? place(prefix) : find(prefix)
    guard index != 0 else { return !add }
    guard add || nodes[Int(index)].isHeld else { return true }
    if nodes[Int(index)].action == .none {
      if staging.last == 0 {
        staging.first = index
      } else {
        links[Int(staging.last)].nextStaged = index
      }
      staging.last = index
    }
    nodes[Int(index)].action = add ? .add : .remove
    return true
  }

  /// Notes that all the peer's prefixes are to be taken from it first, and forgets what was
  /// staged before.
  mutating func stageReplaceAll() {
    abandonStaged()
    staging.replacesAll = true
  }

  /// Does to `peer` what was staged; cannot fail. Time is linear in what was staged and, after
  /// `stageReplaceAll`, in what the peer had.
  mutating func commitStaged(to peer: UInt32) {
    if staging.replacesAll { removeAll(peer: peer) }
    var index = staging.first
    while index != 0 {
      let action = nodes[Int(index)].action
      let next = unstage(index)
      switch action {
      case .add: assign(index, to: peer)
      case .remove: if nodes[Int(index)].peer == peer { unassign(index) }
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
    let next = links[Int(index)].nextStaged
    links[Int(index)].nextStaged = 0
    nodes[Int(index)].action = .none
    return next
  }
}

/// What has been staged for one peer and awaits commit (`AllowedIPs+Staging`).
struct AllowedIPStaging: BitwiseCopyable {
  /// Ends of the list of staged nodes, 0 for none.
  var first: UInt32 = 0
  var last: UInt32 = 0
  /// Commit starts by taking all its prefixes from the peer.
  var replacesAll = false
}
