import Culvert

/// Starting what is forwarded, and the error lines on the way.
extension Service {
  /// False where a socket cannot be had, which has been said.
  static func listen(
    _ driver: UnsafeMutablePointer<Driver>, _ options: ServiceOptions
  ) -> Bool {
    do throws(ForwardFailure) {
      try driver.pointee.listen(options)
      return true
    } catch {
      return report(error)
    }
  }

  /// False where the tunnel does not lead to a destination, which has been said.
  static func startForwarding(
    _ driver: UnsafeMutablePointer<Driver>, _ options: ServiceOptions
  ) -> Bool {
    guard options.isForwarding else { return true }
    do throws(ForwardFailure) {
      try driver.pointee.startForwarding(options.forwards)
      return true
    } catch {
      return report(error)
    }
  }

  private static func report(_ failure: ForwardFailure) -> Bool {
    _ = fail { failure.append(to: &$0) }
    return false
  }
}
