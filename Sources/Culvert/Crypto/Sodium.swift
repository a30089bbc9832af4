import CSodium

/// libsodium itself.
public enum Sodium {
  /// Chooses the implementations that fit this CPU and opens the entropy source. Called once,
  /// before anything else of this folder and before the process drops its privileges.
  ///
  /// - Returns: false where libsodium cannot run here; nothing of the tunnel may then start.
  public static func start() -> Bool {
    csodium_init() >= 0
  }
}
