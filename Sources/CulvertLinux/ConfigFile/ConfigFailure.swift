import Culvert

/// Why a configuration file cannot be used, as one line on standard error. It points into the
/// memory of the settings, so it must be reported before that memory is reused.
struct ConfigFailure: Error, @unchecked Sendable {
  enum Reason {
    case unreadable(SystemError)
    case directory
    case tooLarge
    case wrong(ConfigError.Reason)
    case noInterface
    // A limit of the tables or buffers is exceeded; the value is the limit.
    case mtu(Int)
    case addresses(Int)
    case names(Int)
    case peers(Int)
    case allowedIPs(Int)
  }

  let reason: Reason
  /// NUL-terminated, as the user gave it.
  let path: UnsafePointer<CChar>
  /// Counted from 1; 0 for the file as a whole.
  let line: UInt32
  /// The subject of the reason: a key, a host name or an interface. May be empty.
  let subject: UnsafeRawBufferPointer

  init(
    _ reason: Reason, path: UnsafePointer<CChar>, line: UInt32 = 0,
    subject: UnsafeRawBufferPointer = UnsafeRawBufferPointer(start: nil, count: 0)
  ) {
    self.reason = reason
    self.path = path
    self.line = line
    self.subject = subject
  }

  /// Writes the line to standard error, after "culvert: ". The caller exits with status 1.
  func report() {
    Output.writeLine(to: Output.standardError) {
      $0.append("culvert: ")
      append(to: &$0)
    }
  }

  /// "exit.conf:7: 'Adress': unknown key; ...", without a newline.
  func append(to text: inout Line) {
    text.append(cString: path)
    if line > 0 {
      text.append(":")
      text.append(decimal: UInt64(line))
    }
    text.append(": ")
    if subject.count > 0 {
      text.append("'")
      for byte in subject {
        // Control characters from the file must not reach a terminal.
        let isPrintable = byte > UInt8(ascii: " ") && byte <= UInt8(ascii: "~")
        text.append(byte: isPrintable ? byte : UInt8(ascii: "?"))
      }
      text.append("': ")
    }
    describe(&text)
  }

  private func describe(_ text: inout Line) {
    switch reason {
    case .unreadable(let error):
      text.append("cannot read the file: ")
      text.append(error)
      if error == .EACCES { text.append("; run culvert as a user who may read it") }
    case .directory: text.append("this is a directory; give the path of a configuration file")
    case .tooLarge: text.append("the file is larger than 32 MiB; check that it is the right one")
    case .wrong(let reason): text.append(reason.text)
    case .noInterface: text.append("no interface has this name; ip link lists them")
    case .mtu(let limit): append("MTU is too large; the maximum is ", limit, "", to: &text)
    case .addresses(let limit):
      append("too many addresses; the maximum is ", limit, "", to: &text)
    case .names(let limit):
      append(
        "too many endpoints with host names; the maximum is ", limit,
        ", use IP addresses for the others", to: &text)
    case .peers(let limit):
      append("too many peers; the limit is ", limit, ", raise it with --max-peers", to: &text)
    case .allowedIPs(let limit):
      append(
        "too many allowed IPs; the limit is ", limit, ", raise it with --max-allowed-ips",
        to: &text)
    }
  }

  private func append(
    _ before: StaticString, _ limit: Int, _ after: StaticString, to text: inout Line
  ) {
    text.append(before)
    text.append(decimal: limit)
    text.append(after)
  }
}
