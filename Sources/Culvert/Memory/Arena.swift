/// The single region of memory of a tunnel. The shell maps it, the tunnel carves typed tables,
/// rings and pools from it, and `seal()` ends carving: from then on the process allocates no
/// memory.
///
/// An arena without memory (`Arena.measuring`) runs the same carving code to find out how much a
/// set of limits needs. So the output of `culvert budget` cannot differ from what is carved.
public struct Arena: ~Copyable {
  private let base: UnsafeMutableRawPointer
  private let capacity: Int
  /// True if there is no memory behind the pointers that `carve` returns: they may be kept, but
  /// never read or written.
  public let isMeasuring: Bool
  public private(set) var byteCount = 0
  /// Bytes of the leading part, which holds key material and is locked in RAM (R9).
  public private(set) var secretByteCount = 0
  public private(set) var isSealed = false
  public private(set) var budget = Budget()

  public static let pageByteCount = 4096
  /// The cache line of every board; also more than any element's own alignment.
  static let alignment = 64

  /// The byte count of a measuring arena whose sum exceeds the address space, as the largest limits
  /// do on 32 bits. No memory can be mapped for it.
  package static let unaddressable = Int.max

  /// - Parameter region: page-aligned zeroed memory, as mmap(2) gives it.
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

  /// An arena that counts and has no memory.
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

  /// Where `count` bytes from `start` end, rounded up, or `unaddressable`.
  private static func alignedEnd(_ start: Int, _ count: Int, alignment: Int) -> Int {
    let (sum, isTooMuch) = start.addingReportingOverflow(count)
    return isTooMuch || sum > unaddressable - alignment
      ? unaddressable : roundUp(sum, to: alignment)
  }

  /// Ends the leading part with the secrets on a page boundary, so that the shell can lock it and
  /// exclude it from core dumps.
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

  /// From here on nothing is allocated.
  public mutating func seal() {
    isSealed = true
  }
}

/// `value` rounded up to a multiple of `multiple`, which is a power of two.
@inline(__always)
func roundUp(_ value: Int, to multiple: Int) -> Int {
  (value + multiple - 1) & ~(multiple - 1)
}
