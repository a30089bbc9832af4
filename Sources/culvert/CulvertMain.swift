import Culvert
import CulvertLinux

/// The program's entry in both builds: Embedded Swift has no `CommandLine`, and SwiftPM gives an
/// executable's `main` this name.
@_cdecl("culvert_main")
public func culvertMain(
  _ count: Int32, _ arguments: UnsafePointer<UnsafePointer<CChar>?>
) -> Int32 {
  // Descriptors 0-2 exist from here on: a socket with number 1 would be written log lines to.
  _ = try? Hardening.prepare()
  guard Sodium.start() else {
    return Exit.fail(1) { $0.append("libsodium does not start: no source of randomness") }
  }
  var options = Options()
  switch options.parse(Arguments(count: Int(count), values: arguments)) {
  case .failure(let failure): return failure.report()
  case .command(.help): return Help.print()
  case .command(.forwardHelp): return ForwardHelp.print()
  case .command(.version): return Help.printVersion()
  case .command(.budget): return BudgetCommand.run(options)
  case .command(.selftest): return SelftestCommand.run()
  case .command(.bench): return BenchCommand.run(seconds: options.seconds)
  case .command(.generateKey): return KeyCommand.generate(clamped: true)
  case .command(.generatePresharedKey): return KeyCommand.generate(clamped: false)
  case .command(.publicKey): return KeyCommand.derivePublic()
  case .command(.forward): return Service.run(options.forwardService)
  case .command(.run(let name)): return Service.run(options.service(name))
  }
}

/// Ends with one line that says what went wrong and what to do.
enum Exit {
  /// The user has to change the command line.
  static let usage: Int32 = 2
  /// The system refused something.
  static let failure: Int32 = 1

  @inline(never)
  static func fail(_ status: Int32, _ body: (inout Line) -> Void) -> Int32 {
    Output.writeLine(to: Output.standardError) {
      $0.append("culvert: ")
      body(&$0)
    }
    return status
  }
}
