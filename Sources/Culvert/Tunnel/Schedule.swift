/// Finds the peer whose timer is due first, with a binary heap of the peers in fixed arrays.
///
/// The data path postpones deadlines with every batch, so a postponed deadline does not change the
/// heap at once. The heap keeps the earlier time, and the peer moves to its correct position when
/// it reaches the top.
struct Schedule: ~Copyable {
  private let heap: UnsafeMutablePointer<UInt32>
  /// The position of each peer in the heap, plus 1; 0 for a peer that is not in the heap.
  private let positions: UnsafeMutablePointer<UInt32>
  private let keys: UnsafeMutablePointer<Deadline>
  private(set) var count = 0

  init(carvingFrom arena: inout Arena, peers: Int) {
    let owner: StaticString = "peers: timers"
    heap = arena.carve(UInt32.self, count: peers, owner: owner).baseAddress!
    positions = arena.carve(UInt32.self, count: peers, owner: owner).baseAddress!
    keys = arena.carve(Deadline.self, count: peers, owner: owner).baseAddress!
  }

  /// The peer at the top, and its time in the heap, which may be earlier than its deadline.
  var top: (peer: UInt32, deadline: Deadline)? {
    count == 0 ? nil : (heap[0], keys[Int(heap[0])])
  }

  /// Ensures that `peer` reaches the top at `deadline` or earlier.
  mutating func lower(_ peer: UInt32, to deadline: Deadline) {
    guard deadline.isSet else { return }
    if positions[Int(peer)] == 0 {
      heap[count] = peer
      count &+= 1
      positions[Int(peer)] = UInt32(truncatingIfNeeded: count)
      keys[Int(peer)] = deadline
      siftUp(count &- 1)
    } else if deadline < keys[Int(peer)] {
      keys[Int(peer)] = deadline
      siftUp(Int(positions[Int(peer)]) &- 1)
    }
  }

  /// Moves the top peer to the position for `deadline`, or removes it if `deadline` is `never`.
  mutating func replaceTop(_ deadline: Deadline) {
    guard count > 0 else { return }
    guard deadline.isSet else {
      remove(heap[0])
      return
    }
    keys[Int(heap[0])] = deadline
    siftDown(0)
  }

  mutating func remove(_ peer: UInt32) {
    let position = Int(positions[Int(peer)])
    guard position > 0 else { return }
    positions[Int(peer)] = 0
    count &-= 1
    let hole = position &- 1
    guard hole < count else { return }
    place(heap[count], at: hole)
    siftDown(hole)
    siftUp(hole)
  }

  private func place(_ peer: UInt32, at position: Int) {
    heap[position] = peer
    positions[Int(peer)] = UInt32(truncatingIfNeeded: position &+ 1)
  }

  private func siftUp(_ start: Int) {
    var position = start
    let peer = heap[position]
    let key = keys[Int(peer)]
    while position > 0 {
      let parent = (position &- 1) / 2
      guard key < keys[Int(heap[parent])] else { break }
      place(heap[parent], at: position)
      position = parent
    }
    place(peer, at: position)
  }

  private func siftDown(_ start: Int) {
    var position = start
    let peer = heap[position]
    let key = keys[Int(peer)]
    while true {
      var child = 2 &* position &+ 1
      guard child < count else { break }
      if child &+ 1 < count, keys[Int(heap[child &+ 1])] < keys[Int(heap[child])] { child &+= 1 }
      guard keys[Int(heap[child])] < key else { break }
      place(heap[child], at: position)
      position = child
    }
    place(peer, at: position)
  }
}
