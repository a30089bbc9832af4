/// `culvert selftest`: known answers of everything that a compiler, a CPU or a library could get
/// wrong, on the device itself.
///
/// A group hashes what the code under test gives for inputs that a seed makes, and the first eight
/// bytes of the hash are compared with `SelftestGroup.expected`. Those come from elsewhere: from
/// Tests/Selftest, which works them out from the specifications, and of the reassembler from the
/// naive model in the unit tests.
///
/// All of it runs once, so it is compiled for size: the tunnel's functions stay calls, where a
/// second copy of them would be put into the self-test.
public enum Selftest {
  /// What `digest` needs: the tables of the largest group.
  public static let memoryByteCount = 640 << 10

  /// The digest over all groups, from that over those before and that of the next one. The first
  /// of them comes after 0. It is the same on every board and in both builds.
  @_optimize(size)
  public static func chain(_ total: UInt64, _ digest: UInt64) -> UInt64 {
    var chain = SelftestDigest()
    chain.add(total)
    chain.add(digest)
    return chain.finish()
  }

  /// The digest of one group.
  ///
  /// - Parameter memory: `memoryByteCount` bytes, page-aligned, which are overwritten.
  @_optimize(size)
  public static func digest(
    of group: SelftestGroup, memory: UnsafeMutableRawBufferPointer
  ) -> UInt64 {
    memory.initializeMemory(as: UInt8.self, repeating: 0)
    var run = SelftestRun(memory: memory, seed: UInt64(group.rawValue))
    run.run(group)
    return run.digest.finish()
  }
}
