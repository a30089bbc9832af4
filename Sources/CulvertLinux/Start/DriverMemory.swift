import CLinux
import Culvert

/// What a running tunnel, or several nested ones, carve from the arena: the locked part first.
struct DriverMemory: BitwiseCopyable {
  let uapi: UnsafeMutableRawBufferPointer
  /// One for each hop, the innermost first.
  let tunnels: UnsafeMutablePointer<Tunnel>
  /// One between each two.
  let channels: UnsafeMutablePointer<DatagramChannel>
  let hopCount: Int
  /// In the place of a TUN.
  let forwarding: Forwarding?
  let workers: UnsafeMutablePointer<Worker>
  let workerCount: Int
  let gates: Gates

  init(carvingFrom arena: inout Arena, limits: Limits, hops: Int, isForwarding: Bool = false) {
    precondition(hops > 0 && hops <= Hops.maximum)
    hopCount = hops
    uapi = arena.carveBytes(
      UAPIServers.byteCount(hops: hops), owner: "secrets: configuration socket")
    // Start-up: the arena is not sealed yet. A tunnel is no plain value to the compiler.
    tunnels = .allocate(capacity: hops)
    channels = .allocate(capacity: hops)
    DriverMemory.carveTunnels(from: &arena, limits, tunnels, hops)
    for index in 0..<hops - 1 {
      (channels + index).initialize(to: DatagramChannel(carvingFrom: &arena, limits: limits))
    }
    forwarding = isForwarding ? Forwarding(carvingFrom: &arena, limits: limits) : nil
    workerCount = limits.workers
    workers = arena.carveBytes(
      workerCount * MemoryLayout<Worker>.stride, owner: "workers: state"
    ).baseAddress!.assumingMemoryBound(to: Worker.self)
    for index in 0..<workerCount {
      let worker = Worker(carvingFrom: &arena, hops: hops, isFirst: index == 0)
      for hop in 0..<hops { worker.carveBatches(from: &arena, &(tunnels + hop).pointee, of: hop) }
      if !arena.isMeasuring { (workers + index).initialize(to: worker) }
    }
    gates = Gates(carvingFrom: &arena)
  }

  /// Of all tunnels the secrets come first: only so many pages are locked.
  private static func carveTunnels(
    from arena: inout Arena, _ limits: Limits, _ tunnels: UnsafeMutablePointer<Tunnel>,
    _ count: Int
  ) {
    let secrets = UnsafeMutablePointer<TunnelSecrets>.allocate(capacity: count)
    for hop in 0..<count {
      (secrets + hop).initialize(to: TunnelSecrets(carvingFrom: &arena, limits: limits))
    }
    arena.endSecrets()
    for hop in 0..<count {
      (tunnels + hop).initialize(
        to: Tunnel(carvingFrom: &arena, limits: limits, secrets: (secrets + hop).move()))
    }
    secrets.deallocate()
  }

  /// The end of one that was only for measuring.
  func discard() {
    forwarding?.destroy()
    tunnels.deinitialize(count: hopCount)
    tunnels.deallocate()
    channels.deinitialize(count: hopCount - 1)
    channels.deallocate()
  }
}

/// One zeroed, page-aligned, private mapping: the region that the arena is carved from. It is
/// unmapped when it goes.
public struct MemoryRegion: ~Copyable {
  public let bytes: UnsafeMutableRawBufferPointer

  /// Maps `byteCount` bytes, more than 0. Throws ENOMEM, for `Arena.unaddressable` too.
  public init(byteCount: Int) throws(SystemError) {
    guard byteCount < Arena.unaddressable else { throw .ENOMEM }
    var error: Int32 = 0
    guard let start = clinux_memory_map(byteCount, &error) else {
      throw SystemError(code: -error)
    }
    bytes = UnsafeMutableRawBufferPointer(start: start, count: byteCount)
  }

  deinit {
    _ = clinux_memory_unmap(bytes.baseAddress, bytes.count)
  }

  /// Keeps `part`, page-aligned, in RAM and out of core dumps (R9). Nil on success. An error
  /// (ENOMEM or EPERM under RLIMIT_MEMLOCK, EINVAL on old kernels) is to be reported, no more.
  public static func protect(_ part: UnsafeMutableRawBufferPointer) -> SystemError? {
    if part.count == 0 { return nil }
    // Both are tried, whatever the first one says.
    let dumps = clinux_memory_exclude_from_dumps(part.baseAddress, part.count)
    let lock = clinux_memory_lock(part.baseAddress, part.count)
    if lock < 0 { return SystemError(code: -lock) }
    return dumps < 0 ? SystemError(code: -dumps) : nil
  }
}
