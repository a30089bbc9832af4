import Culvert

/// What a running tunnel, or several nested ones, carve from the arena: the locked part first.
struct DriverMemory: BitwiseCopyable {
  /// Of the configuration sockets; locked.
  let uapi: UnsafeMutableRawBufferPointer
  let hops: HopMemory
  let workers: UnsafeMutablePointer<Worker>
  let workerCount: Int
  let gates: Gates

  init(carvingFrom arena: inout Arena, limits: Limits, hops hopCount: Int, isForwarding: Bool) {
    uapi = arena.carveBytes(
      UAPIServers.byteCount(hops: hopCount), owner: "secrets: configuration socket")
    hops = HopMemory(
      carvingFrom: &arena, limits: limits, count: hopCount, isForwarding: isForwarding)
    workerCount = limits.workers
    // The arena holds plain values only, and a worker is none to the compiler.
    workers = arena.carveBytes(
      workerCount * MemoryLayout<Worker>.stride, owner: "workers: state"
    ).baseAddress!.assumingMemoryBound(to: Worker.self)
    for index in 0..<workerCount {
      let worker = Worker(carvingFrom: &arena, hops: hopCount, isFirst: index == 0)
      for hop in 0..<hopCount { worker.carveBatches(from: &arena, &hops.tunnels[hop], of: hop) }
      if !arena.isMeasuring { (workers + index).initialize(to: worker) }
    }
    gates = Gates(carvingFrom: &arena)
  }

  /// The end of memory that was only measured.
  func discard() { hops.discard() }
}
