import Culvert

/// How often and after which pauses a name is looked up again, as wg(8) does it: 15 times, after a
/// second and then each time a fifth longer, up to 20 seconds. WG_ENDPOINT_RESOLUTION_RETRIES is
/// another number, or "infinity".
struct ResolverRetries {
  /// Nil for ever.
  private var left: Int?
  private var milliseconds: Int

  private static let longest = 20_000

  init(count: Int?, firstMilliseconds: Int = 1000) {
    left = count
    milliseconds = firstMilliseconds
  }

  static func fromEnvironment() -> ResolverRetries {
    if Environment.isSet("WG_ENDPOINT_RESOLUTION_RETRIES", to: "infinity") {
      return ResolverRetries(count: nil)
    }
    return ResolverRetries(count: Environment.integer("WG_ENDPOINT_RESOLUTION_RETRIES") ?? 15)
  }

  /// Milliseconds to wait before the next try; nil where there is none.
  mutating func next() -> Int? {
    if let left {
      guard left > 0 else { return nil }
      self.left = left - 1
    }
    defer { milliseconds = min(ResolverRetries.longest, milliseconds * 6 / 5) }
    return milliseconds
  }
}
