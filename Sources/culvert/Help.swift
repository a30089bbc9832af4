import CulvertLinux

/// The texts that teach.
enum Help {
  static var version: StaticString { "0.1.0" }

  static func printVersion() -> Int32 {
    Output.writeLine(to: Output.standardOutput) {
      $0.append("culvert ")
      $0.append(version)
    }
    return 0
  }

  static func print() -> Int32 {
    let text = Help.text
    Output.write(
      UnsafeRawBufferPointer(start: text.utf8Start, count: text.utf8CodeUnitCount),
      to: Output.standardOutput)
    return 0
  }

  private static var text: StaticString {
    """
    culvert: a WireGuard tunnel in user space, on memory that is fixed at start.

    usage: culvert [OPTIONS] IFNAME     create the interface and serve it
           culvert forward ...          UDP ports into a tunnel, without interface or root
                                        (see culvert forward --help)
           culvert genkey|genpsk        print a new private or preshared key
           culvert pubkey               read a private key, print its public key
           culvert budget [OPTIONS]     print what memory these options take
           culvert selftest             check this program on this device: known answers
           culvert bench [--seconds N]  measure this device: cipher, handshakes, packets
           culvert version

    It takes the place of wireguard-go under wg(8) and wg-quick(8):
      culvert wg0
      wg set wg0 private-key KEYFILE peer PUBKEY endpoint HOST:51820 allowed-ips 0.0.0.0/0
      ip address add 10.0.0.2/24 dev wg0 && ip link set wg0 up
    or
      WG_QUICK_USERSPACE_IMPLEMENTATION=culvert wg-quick up wg0

    Without wg(8), from a file as wg-quick(8) has it; addresses and MTU are set, routes are yours:
      culvert wg0 --config wg0.conf

    A tunnel inside a tunnel, with one interface for both, wg0 (wg show wg0-1 is the outer one):
      culvert wg0 --config exit.conf --through entry.conf [--through ...]

    options:
      -f, --foreground       stay in the foreground
      --config FILE          the tunnel's keys, peers, addresses and MTU
      --through FILE         the same of a tunnel around it, and around those before; its Address
                             is what the tunnel inside sends from. Up to 3
      --profile NAME         tiny (2 MB), standard (8 MB, the default) or gateway
      --mtu BYTES            MTU that the interface starts with (default 1420; inside other
                             tunnels what fits there, and it follows them)
      --state-dir DIR        where the last handshake timestamp is kept, so that a device
                             without a clock comes up again (default /var/lib/culvert)
      --socket-buffer BYTES  what the kernel may hold for each socket of what has come
                             (default 1048576 with tiny, 4194304, 8388608 with gateway)
      --workers N            threads that carry packets (default: as many as CPUs)
      --offload LIST         what to leave to the kernel, of checksum,tso,uso (interface) and
                             gso,gro,mmsg (sockets); default all that it has
      --no-offload           none of it: one packet, one system call

    limits, in place of the profile's (see culvert budget):
      --max-peers N          peers
      --max-allowed-ips N    allowed IPs of all peers together
      --max-staged N         packets that wait for one peer's handshake
      --staging-slots N      2 KB slots for those of all peers
      --handshake-ring N     handshake messages that wait; an eighth of it means load
      --batch-packets N      packets carried at once

    environment:
      LOG_LEVEL              verbose (or debug), error (the default), silent
      WG_TUN_FD, WG_UAPI_FD  descriptors to use instead of opening them
      WG_PROCESS_FOREGROUND  1: as -f

    SIGUSR1 prints why packets were dropped, by count. SIGTERM ends the tunnel and removes the
    interface, as deleting the interface or /var/run/wireguard/IFNAME.sock does.

    """
  }
}
