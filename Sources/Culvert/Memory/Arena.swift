/// The single memory region of a tunnel. The shell maps it, and the tunnel carves typed tables,
/// rings and pools from it. After `seal()` nothing can be carved, and the process allocates no more
/// memory.
///
/// An arena without memory (`Arena.measuring`) runs the same carving code to find out how much a
/// set of limits needs. The output of `culvert budget` therefore always matches the real size.
public struct Arena: ~Copyable {
  private let base: UnsafeMutableRawPointer
  private let capacity: Int
  /// True if there is no memory behind the pointers that `carve` returns. They may be stored, but
  /// not dereferenced.
  public let isMeasuring: Bool
  public private(set) var byteCount = 0
  /// Bytes of the leading part, which holds key material and is locked in RAM (R9).
  public private(set) var secretByteCount = 0
  public private(set) var isSealed = false
  public private(set) var budget = Budget()

  public static let pageByteCount = 4096
  /// The cache line size of every board. No element needs a larger alignment.
  static let alignment = 64

  /// The byte count of a measuring arena that exceeds the address space, which happens with the
  /// largest limits on 32 bits. It cannot be mapped.
  package static let unaddressable = Int.max

  /// - Parameter region: page-aligned zeroed memory, as from mmap(2).
  public init(region: UnsafeMutableRawBufferPointer) {
    precondition(
      UInt(bitPattern: region.baseAddress) % UInt(Arena.alignment) == 0 && region.count > 0
        && region.count < Arena.unaddressable)
    base = region.baseAddress!
    capacity = region.count
    isMeasuring = false
  }

  private init(measuring: Void) {
    base = UnsafeMutableRawPointer(bitPattern: Arena.pageByteCount)!
    capacity = Arena.unaddressable
    isMeasuring = true
  }

  /// An arena that has no memory and only counts bytes.
  public static var measuring: Arena { Arena(measuring: ()) }

  /// `count` zeroed elements of `Element`, charged to `owner`.
  ///
  /// All-zero bytes must be a valid value of the element type. Its size should equal its stride,
  /// with its widest field last: otherwise the compiler loses the alignment of indexed elements,
  /// and on boards without unaligned loads (RISC-V) it reads every field byte by byte.
  public mutating func carve<Element: BitwiseCopyable>(
    _ type: Element.Type, count: Int, owner: StaticString
  ) -> UnsafeMutableBufferPointer<Element> {
    let (wanted, isTooMuch) = count.multipliedReportingOverflow(by: MemoryLayout<Element>.stride)
    let bytes = carveBytes(isTooMuch ? Arena.unaddressable : wanted, owner: owner)
    return UnsafeMutableBufferPointer(
      start: bytes.baseAddress!.assumingMemoryBound(to: Element.self), count: count)
  }

  /// `count` zeroed bytes, aligned to a cache line, charged to `owner`.
  public mutating func carveBytes(
    _ count: Int, owner: StaticString
  ) -> UnsafeMutableRawBufferPointer {
    precondition(!isSealed, "the arena is sealed")
    precondition(count >= 0)
    let start = byteCount
    let end = Arena.alignedEnd(start, count, alignment: Arena.alignment)
    precondition(isMeasuring || end <= capacity, "the arena is smaller than its budget")
    byteCount = end
    budget.add(owner, byteCount: end - start)
    return UnsafeMutableRawBufferPointer(start: base + start, count: count)
  }

  /// The end of `count` bytes at `start`, rounded up; `unaddressable` on overflow.
  private static func alignedEnd(_ start: Int, _ count: Int, alignment: Int) -> Int {
    let (sum, isTooMuch) = start.addingReportingOverflow(count)
    return isTooMuch || sum > unaddressable - alignment
      ? unaddressable : roundUp(sum, to: alignment)
  }

  /// A byte count rounded up so that what follows is aligned as `carveBytes` aligns it.
  package static func aligned(_ byteCount: Int) -> Int { roundUp(byteCount, to: alignment) }

  /// Ends the leading part, which holds the secrets, on a page boundary. The shell can then lock it
  /// and exclude it from core dumps.
  public mutating func endSecrets() {
    precondition(secretByteCount == 0, "the secrets have already ended")
    let end = Arena.alignedEnd(byteCount, 0, alignment: Arena.pageByteCount)
    precondition(isMeasuring || end <= capacity, "the arena is smaller than its budget")
    budget.add("padding of the locked pages", byteCount: end - byteCount)
    byteCount = end
    secretByteCount = end
  }

  /// The leading part, which the shell locks.
  public var secrets: UnsafeMutableRawBufferPointer {
    UnsafeMutableRawBufferPointer(start: base, count: secretByteCount)
  }

  /// Ends carving. Nothing is allocated afterwards.
  public mutating func seal() {
    isSealed = true
  }
}

/// `value` rounded up to a multiple of `multiple`, which is a power of two.
@inline(__always)
func roundUp(_ value: Int, to multiple: Int) -> Int {
  (value + multiple - 1) & ~(multiple - 1)
}
