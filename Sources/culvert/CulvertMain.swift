import Culvert
import CulvertLinux

/// The entry point of both builds. Embedded Swift has no `CommandLine`, and SwiftPM renames the
/// `main` of an executable target to this name.
@_cdecl("culvert_main")
public func culvertMain(
  _ count: Int32, _ arguments: UnsafePointer<UnsafePointer<CChar>?>
) -> Int32 {
  // Makes sure that descriptors 0-2 are open. Otherwise a socket could become descriptor 1 and
  // receive log lines.
  _ = try? Hardening.prepare()
  guard Sodium.start() else {
    return Exit.fail(1) { $0.append("cannot initialize libsodium: no source of randomness") }
  }
  var options = Options()
  switch options.parse(Arguments(count: Int(count), values: arguments)) {
  case .failure(let failure): return failure.report()
  case .command(.help): return Exit.ended(Help.print())
  case .command(.forwardHelp): return Exit.ended(ForwardHelp.print())
  case .command(.version): return Exit.ended(Help.printVersion())
  case .command(.budget): return Exit.ended(BudgetCommand.run(options))
  case .command(.selftest): return Exit.ended(SelftestCommand.run())
  case .command(.bench): return Exit.ended(BenchCommand.run(seconds: options.seconds))
  case .command(.generateKey): return Exit.ended(KeyCommand.generate(clamped: true))
  case .command(.generatePresharedKey): return Exit.ended(KeyCommand.generate(clamped: false))
  case .command(.publicKey): return Exit.ended(KeyCommand.derivePublic())
  case .command(.forward): return Service.run(options.forwardService)
  case .command(.run(let name)): return Service.run(options.service(name))
  }
}

/// Reports an error in one line that explains what went wrong and what to do.
enum Exit {
  /// The command line is wrong.
  static let usage: Int32 = 2
  /// The system refused an operation.
  static let failure: Int32 = 1

  /// The exit status of a command whose purpose is its output: a failure if that cannot be written,
  /// for example to a full disk (R64). The command would otherwise leave an empty key file behind.
  static func ended(_ status: Int32) -> Int32 {
    guard let error = Output.end(), status == 0 else { return status }
    return fail(failure) {
      $0.append("cannot write the output: ")
      $0.append(error)
    }
  }

  static func fail(_ status: Int32, _ body: (inout Line) -> Void) -> Int32 {
    Output.writeLine(to: Output.standardError) {
      $0.append("culvert: ")
      body(&$0)
    }
    return status
  }
}
