import Culvert

/// The memory of a running tunnel, or of several nested ones, carved from the arena. The locked
/// part is first.
struct DriverMemory: BitwiseCopyable {
  /// Locked memory of the configuration sockets.
  let uapi: UnsafeMutableRawBufferPointer
  let hops: HopMemory
  let workers: UnsafeMutablePointer<Worker>
  let workerCount: Int
  let gates: Gates
  let resolver: ResolverMemory

  init(carvingFrom arena: inout Arena, limits: Limits, hops hopCount: Int, isForwarding: Bool) {
    uapi = arena.carveBytes(
      UAPIServers.byteCount(hops: hopCount), owner: "secrets: configuration socket")
    hops = HopMemory(
      carvingFrom: &arena, limits: limits, count: hopCount, isForwarding: isForwarding)
    workerCount = limits.workers
    // Carved as bytes, because a worker is not a trivial type to the compiler.
    workers = arena.carveBytes(
      workerCount * MemoryLayout<Worker>.stride, owner: "workers: state"
    ).baseAddress!.assumingMemoryBound(to: Worker.self)
    for index in 0..<workerCount {
      let worker = Worker(carvingFrom: &arena, hops: hopCount, isFirst: index == 0)
      for hop in 0..<hopCount { worker.carveBatches(from: &arena, &hops.tunnels[hop], of: hop) }
      if !arena.isMeasuring { (workers + index).initialize(to: worker) }
    }
    gates = Gates(carvingFrom: &arena)
    resolver = ResolverMemory(
      carvingFrom: &arena, capacity: hopCount * ConfigFileSettings.maximumNames)
  }

  /// Releases the heap memory of a value that was carved from a measuring arena.
  func discard() { hops.discard() }
}
