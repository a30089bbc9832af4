// Runs many streams of fragments through the core and through its model, and compares every
// outcome. Tests/Fuzz/Models/run builds it as a release build and runs it.
//
//     culvert-models FIRST COUNT     the streams with seeds FIRST, FIRST + 1, ...
import Glibc

func fail(_ message: String) -> Never {
  "culvert-models: \(message)\n".withCString { _ = write(STDERR_FILENO, $0, strlen($0)) }
  _exit(1)
}

nonisolated(unsafe) private var current: UInt64 = 0

// If a stream traps, print its seed too.
for number in [SIGILL, SIGTRAP, SIGSEGV, SIGBUS, SIGABRT] {
  signal(number) { fail("stream \(current): signal \($0)") }
}

let arguments = CommandLine.arguments.dropFirst().compactMap { UInt64($0) }
guard arguments.count == 2 else { fail("usage: FIRST COUNT") }
// One stream in 64 has room for the largest datagrams; one in 16 is checked after each step.
let largest = 65_575
let worlds = [
  (ReassemblyWorld(isThorough: false), 2048), (ReassemblyWorld(), 2048),
  (ReassemblyWorld(maximumByteCount: largest, isThorough: false), largest),
]
for seed in arguments[0]..<(arguments[0] + arguments[1]) {
  let (world, maximumByteCount) = worlds[seed % 64 == 0 ? 2 : seed % 16 == 1 ? 1 : 0]
  current = seed
  ReassemblyStream.run(seed: seed, in: world, maximumByteCount: maximumByteCount)
  if let failure = world.failure { fail("stream \(seed): \(failure)") }
}
// Print how often each verdict was given: a verdict that no stream reaches is untested.
for (index, entry) in worlds[0].0.tally.enumerated() {
  print("\(entry.name)\t\(worlds.map { $0.0.tally[index].count }.reduce(0, +))")
}
print("compared\t\(worlds.map(\.0.comparisons).reduce(0, +))")
