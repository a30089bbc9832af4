import Culvert

/// Why a configuration file cannot be used, for one line on standard error. It points into the
/// memory of the settings, and is reported before that is used again, by the same thread.
public struct ConfigFailure: Error, @unchecked Sendable {
  enum Reason {
    case unreadable(SystemError)
    case directory
    case tooLarge
    case wrong(ConfigError.Reason)
    case noInterface
    case unresolved(ResolverFailure)
    /// Somebody wants the program to end.
    case interrupted
    // What the tables have no room for, and how much they have.
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
  /// What the reason is about: a key, a host name, an interface; may be empty.
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

  /// "exit.conf:7: 'Adress': unknown key; ...", without a newline.
  public func append(to text: inout Line) {
    text.append(cString: path)
    if line > 0 {
      text.append(byte: 0x3a)
      text.append(decimal: UInt64(line))
    }
    text.append(": ")
    if subject.count > 0 {
      text.append("'")
      for byte in subject { text.append(byte: byte > 0x20 && byte < 0x7f ? byte : 0x3f) }
      text.append("': ")
    }
    describe(&text)
  }

  /// Writes it to standard error, behind "culvert: ". The caller exits with 1.
  public func report() {
    Output.writeLine(to: Output.standardError) {
      $0.append("culvert: ")
      append(to: &$0)
    }
  }

  private func describe(_ text: inout Line) {
    switch reason {
    case .unreadable(let error):
      text.append("cannot be read: ")
      text.append(error)
    case .directory: text.append("is a directory; name a file in it")
    case .tooLarge: text.append("is too large for a configuration; is this the right file?")
    case .wrong(let reason): text.append(reason.text)
    case .noInterface: text.append("there is no such interface; see ip link")
    case .unresolved(let failure): text.append(failure.text)
    case .interrupted: text.append("interrupted while a host name was looked up")
    case .mtu(let limit): limited(&text, "the MTU may be up to ", limit, "")
    case .addresses(let limit): limited(&text, "there is room for ", limit, " addresses")
    case .names(let limit):
      limited(&text, "there is room for ", limit, " host names; write addresses in their place")
    case .peers(let limit):
      limited(&text, "there is room for ", limit, " peers; see culvert --help, --max-peers")
    case .allowedIPs(let limit):
      limited(
        &text, "there is room for ", limit, " allowed IPs; see culvert --help, --max-allowed-ips")
    }
  }

  private func limited(
    _ text: inout Line, _ before: StaticString, _ limit: Int, _ after: StaticString
  ) {
    text.append(before)
    text.append(decimal: limit)
    text.append(after)
  }
}
