/// Doubly linked rings of small numbers, without branches: some numbers are elements, and some are
/// the heads of rings that elements are put into. An element is in one ring at a time.
struct LinkTable: BitwiseCopyable {
  private struct Link: BitwiseCopyable {
    var previous: UInt8
    var next: UInt8
  }

  private let links: UnsafeMutablePointer<Link>
  private let count: Int

  /// - Parameter count: of elements and heads together, at most 256.
  init(carvingFrom arena: inout Arena, count: Int, owner: StaticString) {
    precondition(count <= 256)
    links = arena.carve(Link.self, count: count, owner: owner).baseAddress!
    self.count = count
  }

  /// Empties all rings; once, before anything else.
  func prepare() {
    for number in 0..<count {
      let alone = UInt8(truncatingIfNeeded: number)
      links[number] = Link(previous: alone, next: alone)
    }
  }

  /// The element behind another or behind the head; the head itself behind the last.
  @inline(__always)
  func next(_ number: Int) -> Int {
    Int(links[number].next)
  }

  /// Puts an element at the end of a ring.
  @inline(__always)
  func append(_ element: Int, to head: Int) {
    let last = links[head].previous
    let number = UInt8(truncatingIfNeeded: element)
    links[element] = Link(previous: last, next: UInt8(truncatingIfNeeded: head))
    links[Int(last)].next = number
    links[head].previous = number
  }

  /// Takes an element out of its ring.
  @inline(__always)
  func remove(_ element: Int) {
    let link = links[element]
    links[Int(link.previous)].next = link.next
    links[Int(link.next)].previous = link.previous
  }
}
