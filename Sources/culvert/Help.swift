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

/// What `culvert forward --help` teaches.
enum ForwardHelp {
  static func print() -> Int32 {
    let text = ForwardHelp.text
    Output.write(
      UnsafeRawBufferPointer(start: text.utf8Start, count: text.utf8CodeUnitCount),
      to: Output.standardOutput)
    return 0
  }

  private static var text: StaticString {
    """
    culvert forward: UDP ports of this machine that lead through a tunnel, without an interface.

    usage: culvert forward --config FILE --udp LISTEN:PORT=DESTINATION:PORT ... [OPTIONS]

    Any user may run it: no TUN is opened and nothing is configured in the system. It runs in the
    foreground until SIGTERM or SIGINT. For example, the name server behind a tunnel:
      culvert forward --config wg.conf --udp 127.0.0.1:5353=10.0.0.1:53
      dig @127.0.0.1 -p 5353 example.com

    --config FILE            as for wg-quick(8); of its [Interface] section PrivateKey, Address (to
                             send from: one for each family of destinations), ListenPort, FwMark
                             and MTU count, of [Peer] all
    --udp LISTEN:PORT=DESTINATION:PORT
                             up to 32 times. Addresses, no names: 10.0.0.1:53, [fd00::1]:53. LISTEN
                             may be of another family than DESTINATION; 0.0.0.0 or [::] listens on
                             all of a family; where it is left out (:5353=10.0.0.1:53) it is
                             127.0.0.1. A peer's AllowedIPs must cover DESTINATION
    --through FILE           the tunnel inside another, up to 3 times (see culvert --help)

    Each client, an address and port, has a flow, and each flow a port of its own inside the tunnel.
    A flow ends 180 s after its last datagram, 30 s where nobody has ever answered, and when an ICMP
    error from inside says that its destination cannot be reached; the client's next datagram opens
    another. In a full table a new flow takes the place of one that has waited in vain for 10 s, or
    has had the answer to its one question, or has been silent for 10 s, in this order, the least
    recently used first. Where there is none the datagram is dropped and counted.

    Datagrams larger than the tunnel's MTU go in fragments. Those from inside are put together up to
    2048 bytes with --profile tiny, else up to any size.

    options:
      --max-flows N          flows at a time (default 64 with tiny, 256, 4096 with gateway)
      --state-dir DIR        where the last handshake timestamp is kept, under the name of FILE
                             (default /var/lib/culvert: choose one that you may write to)
      --profile, --mtu, --workers, --offload, --socket-buffer and the limits: see culvert --help

    There is no configuration socket: /var/run/wireguard is root's. LOG_LEVEL=verbose tells of
    handshakes. SIGUSR1 prints how many flows and datagrams came to what end; so does the exit.

    """
  }
}
