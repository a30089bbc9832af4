/// Which rights are missing, in words that say what to do. Dropping rights will come here.
public enum Privileges {
  /// What to tell the user when the TUN cannot be had; nil where the error speaks for itself.
  public static func advice(forTun error: SystemError) -> StaticString? {
    switch error {
    case .EPERM, .EACCES: "needs root or CAP_NET_ADMIN"
    case .ENOENT, .ENODEV:
      "/dev/net/tun is missing: modprobe tun, or in a container --device /dev/net/tun"
    case .EBUSY: "the interface is in use by another process"
    case .EINVAL: "there is an interface that is no TUN of this kind (ip tuntap add mode tun)"
    case .EBADF: "WG_TUN_FD is no open descriptor"
    default: nil
    }
  }

  /// The same for the configuration socket.
  public static func advice(forUAPI error: SystemError) -> StaticString? {
    switch error {
    case .EPERM, .EACCES: "needs to be root to write in /var/run/wireguard"
    case .EADDRINUSE: "another process serves this interface"
    case .EBADF: "WG_UAPI_FD is no open descriptor"
    case .EINVAL: "WG_UAPI_FD is no listening socket"
    case .ENOENT: "the parent of the socket's directory is missing"
    default: nil
    }
  }
}
