/// BLAKE2s (RFC 7693), plain or keyed, 1 to 32 bytes out: WireGuard's HASH and MAC (whitepaper
/// section 5.4). Ours, because libsodium has only its 64-bit sister.
///
/// A hash under way may hold key material: it cannot be copied, and `finish` wipes it.
struct BLAKE2s: ~Copyable {
  static let digestByteCount = 32
  static let keyByteCountMaximum = 32

  private var state: BLAKE2sState
  private var block = BLAKE2sBlock()
  /// Bytes of input that wait in `block`. A full block waits too until more input comes: only
  /// then is it known not to be the last.
  private var waitingByteCount = 0
  private var byteCount: Int

  /// A plain hash of `byteCount` bytes, 1 to 32.
  init(byteCount: Int = BLAKE2s.digestByteCount) {
    precondition(byteCount >= 1 && byteCount <= BLAKE2s.digestByteCount)
    self.byteCount = byteCount
    state = BLAKE2sState(byteCount: byteCount, keyByteCount: 0)
  }

  /// A keyed hash of `byteCount` bytes, 1 to 32, under a key of 1 to 32 bytes.
  init(byteCount: Int = BLAKE2s.digestByteCount, key: UnsafeRawPointer, keyByteCount: Int) {
    precondition(byteCount >= 1 && byteCount <= BLAKE2s.digestByteCount)
    precondition(keyByteCount >= 1 && keyByteCount <= BLAKE2s.keyByteCountMaximum)
    self.byteCount = byteCount
    state = BLAKE2sState(byteCount: byteCount, keyByteCount: keyByteCount)
    // RFC 7693 section 2.9: the key, zero-padded to a block, is the first block of input.
    append(key, byteCount: keyByteCount)
    waitingByteCount = BLAKE2sBlock.byteCount
  }

  /// Appends `byteCount` bytes, 0 or more, to the input.
  @inline(never)
  mutating func update(_ input: UnsafeRawPointer, byteCount: Int) {
    var input = input
    var left = byteCount
    let room = BLAKE2sBlock.byteCount &- waitingByteCount
    if left > room {
      append(input, byteCount: room)
      state.compress(block, byteCount: BLAKE2sBlock.byteCount, isLast: false)
      waitingByteCount = 0
      input += room
      left &-= room
      while left > BLAKE2sBlock.byteCount {
        state.compress(
          BLAKE2sBlock(at: input), byteCount: BLAKE2sBlock.byteCount, isLast: false)
        input += BLAKE2sBlock.byteCount
        left &-= BLAKE2sBlock.byteCount
      }
    }
    append(input, byteCount: left)
  }

  /// Appends bytes to the input; an empty buffer appends nothing.
  @inline(__always)
  mutating func update(_ input: UnsafeRawBufferPointer) {
    guard let start = input.baseAddress else { return }
    update(start, byteCount: input.count)
  }

  /// Writes the digest and wipes the hash, which is of no further use. `digest` may be where any
  /// of the input stood.
  @inline(never)
  mutating func finish(into digest: UnsafeMutableRawPointer) {
    let waiting = waitingByteCount
    withUnsafeMutableBytes(of: &block) {
      Secret.wipe($0.baseAddress! + waiting, byteCount: BLAKE2sBlock.byteCount &- waiting)
    }
    state.compress(block, byteCount: waiting, isLast: true)
    state.write(to: digest, byteCount: byteCount)
    withUnsafeMutableBytes(of: &state) { Secret.wipe($0.baseAddress!, byteCount: $0.count) }
    withUnsafeMutableBytes(of: &block) { Secret.wipe($0.baseAddress!, byteCount: $0.count) }
    waitingByteCount = 0
  }

  /// Copies what fits into the waiting block; the caller has made room.
  private mutating func append(_ input: UnsafeRawPointer, byteCount: Int) {
    let waiting = waitingByteCount
    withUnsafeMutableBytes(of: &block) {
      ($0.baseAddress! + waiting).copyMemory(from: input, byteCount: byteCount)
    }
    waitingByteCount = waiting &+ byteCount
  }
}

extension BLAKE2s {
  /// HASH(a || b), 32 bytes (whitepaper section 5.4). `digest` may overlap the input.
  @inline(never)
  static func hash(
    into digest: UnsafeMutableRawPointer, _ a: UnsafeRawBufferPointer,
    _ b: UnsafeRawBufferPointer = UnsafeRawBufferPointer(start: nil, count: 0)
  ) {
    var hash = BLAKE2s()
    hash.update(a)
    hash.update(b)
    hash.finish(into: digest)
  }

  /// MAC(key, message), keyed BLAKE2s of 16 bytes (whitepaper section 5.4), under a key of 1 to
  /// 32 bytes. `mac` may overlap the message.
  @inline(never)
  static func mac(
    into mac: UnsafeMutableRawPointer, key: UnsafeRawPointer, keyByteCount: Int,
    message: UnsafeRawPointer, byteCount: Int
  ) {
    var hash = BLAKE2s(byteCount: WireGuard.macByteCount, key: key, keyByteCount: keyByteCount)
    hash.update(message, byteCount: byteCount)
    hash.finish(into: mac)
  }
}
