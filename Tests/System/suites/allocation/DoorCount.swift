// A million random and mutated datagrams and a million configuration lines, with every allocation
// counted: the worlds of Tests/Unit/CulvertTests/Door in a release build. build.py compiles it.

@_silgen_name("allocation_count") private func allocationCount() -> UInt64
@_silgen_name("free_count") private func freeCount() -> UInt64

@main enum DoorCount {
  static func main() {
    precondition(Sodium.start())
    let wanted = CommandLine.arguments.count > 1 ? Int(CommandLine.arguments[1])! : 1_000_000
    let world = DoorWorld()
    let door = UAPIDoor()
    let allocations = allocationCount()
    let frees = freeCount()
    var seed: UInt64 = 0
    while world.datagramCount < wanted, world.failure == nil {
      seed += 1
      world.run(seed: seed)
    }
    let datagramAllocations = allocationCount() - allocations
    while door.lineCount < wanted, door.failure == nil {
      seed += 1
      door.run(seed: seed)
    }
    let taken = allocationCount() - allocations
    let given = freeCount() - frees
    let failure = world.failure ?? door.failure
    print(
      "\(world.datagramCount) datagrams, \(door.lineCount) lines, \(taken) allocations",
      "(\(datagramAllocations) by datagrams), \(given) frees; before them \(allocations)")
    if let failure { fatalError("seed \(seed): \(failure)") }
    if taken + given > 0 { fatalError("memory was taken or given back") }
  }
}
