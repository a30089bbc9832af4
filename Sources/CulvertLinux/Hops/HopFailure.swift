import Culvert

/// Why the hops cannot be configured, in one line for the user.
enum HopFailure: Error {
  /// The error has already been reported.
  case file
  case setting(SettingFailure)
  case system(SystemError)
}

/// A setting of a configuration file that cannot be applied.
struct SettingFailure: Error, @unchecked Sendable {
  enum Reason {
    /// Something is missing; the text says what.
    case lacks(StaticString)
    case listenPort(UInt16, SystemError)
    /// Bytes, and an IPv6 address of the interface.
    case smallMTU(Int, ConfigAddress)
    case address(ConfigAddress, SystemError)
  }

  /// NUL-terminated, as the user gave it.
  let path: UnsafePointer<CChar>
  let reason: Reason

  init(_ path: UnsafePointer<CChar>, _ reason: Reason) {
    self.path = path
    self.reason = reason
  }

  /// "exit.conf: cannot listen on port 51820: ...", without a newline.
  func append(to line: inout Line) {
    line.append(cString: path)
    line.append(": ")
    switch reason {
    case .lacks(let text): line.append(text)
    case .listenPort(let port, let error):
      line.append("cannot listen on port ")
      line.append(decimal: Int(port))
      line.append(": ")
      line.append(error)
      if error == .EADDRINUSE {
        line.append("; stop the program that uses it (see ss -ulpn), or change ListenPort")
      }
    case .smallMTU(let mtu, let address):
      line.append("an MTU of ")
      line.append(decimal: mtu)
      line.append(" is too small for the IPv6 address ")
      line.append(address)
      line.append("; use at least 1280, or remove the IPv6 addresses")
    case .address(let address, let error):
      line.append("cannot add the address ")
      line.append(address)
      line.append(": ")
      line.append(error)
      if error == .EPERM { line.append("; needs CAP_NET_ADMIN") }
    }
  }
}

extension Line {
  /// Appends "192.0.2.1/24".
  mutating func append(_ address: ConfigAddress) {
    append(address.address)
    append("/")
    append(decimal: Int(address.length))
  }
}
