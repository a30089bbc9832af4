// Single operations of the core, for Tests/Bench/Micro/run: instructions under callgrind, and
// nanoseconds without it.
//
//     culvert-microbench list                names, and how many operations to count
//     culvert-microbench count NAME          runs them after a warm-up, in `countedOperations`
//     culvert-microbench time                nanoseconds per operation of every case
import Glibc

/// The only function that callgrind counts (`--toggle-collect`). It must be a real call: not
/// inlined, not specialised, and with work after `body`, so that it is not a tail call.
@inline(never)
func countedOperations(_ body: (Int) -> Void, _ count: Int) {
  body(count)
  keep(UInt64(count))
}

/// Nanoseconds per operation: the median of many runs of at least 0.2 ms each, so outliers in
/// either direction do not count.
func nanoseconds(_ body: (Int) -> Void) -> Double {
  let clock = ContinuousClock()
  func time(_ count: Int) -> Double {
    let elapsed = clock.measure { body(count) }.components
    return Double(elapsed.seconds) * 1e9 + Double(elapsed.attoseconds) / 1e9
  }
  var count = 1
  while time(count) < 2e5 { count *= 2 }
  let runs = 101
  return (0..<runs).map { _ in time(count) / Double(count) }.sorted()[runs / 2]
}

func fail(_ message: String) -> Never {
  "culvert-microbench: \(message)\n".withCString { _ = write(STDERR_FILENO, $0, strlen($0)) }
  exit(2)
}

guard Sodium.start() else { fail("libsodium cannot start") }
let arguments = CommandLine.arguments.dropFirst()
switch (arguments.first, arguments.count) {
case ("list", 1):
  for micro in MicroCase.all { print("\(micro.name)\t\(micro.count)") }
case ("time", 1):
  for micro in MicroCase.all { print("\(micro.name)\t\(nanoseconds(micro.prepare()))") }
case ("count", 2):
  guard let micro = MicroCase.all.first(where: { $0.name == arguments.last! }) else {
    fail("no case '\(arguments.last!)'")
  }
  let body = micro.prepare()
  // Warm-up: dynamic linking, first page faults, a filled replay window.
  body(micro.count)
  countedOperations(body, micro.count)
default:
  fail("usage: list | count NAME | time")
}
