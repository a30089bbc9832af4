// Runs simulations of tunnels between hosts. Tests/Fuzz/Simulator/run builds it as a release build
// and runs it.
//
//     culvert-simulator FIRST COUNT              the seeds FIRST, FIRST + 1, ...
//     culvert-simulator plan SEED [OPTION...]    one run; see SimulationPlan
//     culvert-simulator log SEED [OPTION...]     the same, and all that happens in it
//
// A run that fails prints its seed, what is wrong, and the events that have happened.
import Glibc

/// Writes a line at once, also if the program ends without flushing its buffers.
func say(_ line: String) {
  "\(line)\n".withCString { _ = write(STDOUT_FILENO, $0, strlen($0)) }
}

func fail(_ line: String) -> Never {
  say(line)
  _exit(1)
}

nonisolated(unsafe) private var current: UInt64 = 0

// If a run traps or does not end, print its seed too.
for number in [SIGILL, SIGTRAP, SIGSEGV, SIGBUS, SIGABRT] {
  signal(number) { fail("failed \(current)\tsignal \($0)") }
}
signal(SIGPROF) { _ in fail("failed \(current)\tthe run does not end") }

/// A run takes milliseconds of processor time, with hundreds of hosts less than a second.
let longestRun = timeval(tv_sec: 60, tv_usec: 0)

nonisolated(unsafe) private var hasFailed = false
/// Runs by the seconds that it took until all pairs had exchanged a packet again.
nonisolated(unsafe) private var recoveries = [Int](repeating: 0, count: 64)
nonisolated(unsafe) private var delivered = 0
private let verdicts = (0..<Verdict.count).compactMap(Verdict.init(rawValue:))
nonisolated(unsafe) private var counts = [UInt64](repeating: 0, count: verdicts.count)

func run(_ plan: SimulationPlan, isLogged: Bool = false) {
  current = plan.seed
  var limit = itimerval(it_interval: timeval(), it_value: longestRun)
  setitimer(__itimer_which_t(ITIMER_PROF.rawValue), &limit, nil)
  let simulator = Simulator(plan)
  if isLogged { simulator.log = say }
  simulator.run()
  if let problem = simulator.problem {
    let events = simulator.happened.map(\.text).joined(separator: ",")
    let faults = plan.faults.map(\.name).sorted()
    hasFailed = true
    say(
      "failed \(plan.seed)\t\(problem.text)\t"
        + "host \(problem.host) after \(simulator.time(problem.now)) s\t\(events)\t"
        + "\(plan.hostCount)\t\(plan.seconds)\t\(faults.joined(separator: ","))")
    return
  }
  delivered += simulator.packets.deliveredCount
  for (place, verdict) in verdicts.enumerated() { counts[place] += simulator.count(verdict) }
  recoveries[min(63, Int(simulator.recovery / nanosecondsPerSecond))] += 1
}

guard Sodium.start() else { fail("libsodium does not start") }
let words = Array(CommandLine.arguments.dropFirst())
if words.first == "plan" || words.first == "log" {
  guard let plan = SimulationPlan(Array(words.dropFirst())) else { fail("usage: plan SEED ...") }
  run(plan, isLogged: words.first == "log")
} else {
  let numbers = words.compactMap { UInt64($0) }
  guard numbers.count == 2 else { fail("usage: FIRST COUNT") }
  for seed in numbers[0]..<numbers[0] + numbers[1] {
    run(SimulationPlan(seed: seed))
  }
}
say("delivered\t\(delivered)")
for (verdict, count) in zip(verdicts, counts) { say("verdict\t\(verdict.name)\t\(count)") }
say("recoveries\t\(recoveries.map { String($0) }.joined(separator: " "))")
exit(hasFailed ? 1 : 0)
