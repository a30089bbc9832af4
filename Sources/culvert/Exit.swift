import CulvertLinux

/// Ends with one line that says what went wrong and what to do.
enum Exit {
  /// The user has to change the command line.
  static let usage: Int32 = 2
  /// The system refused something.
  static let failure: Int32 = 1

  static func fail(_ status: Int32, _ body: (inout Line) -> Void) -> Int32 {
    Output.writeLine(to: Output.standardError) {
      $0.append("culvert: ")
      body(&$0)
    }
    return status
  }
}
