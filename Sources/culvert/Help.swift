import CulvertLinux

/// `culvert --help` and `culvert version`.
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
    culvert: a WireGuard tunnel in user space, with memory fixed at startup.

    usage: culvert [OPTIONS] [--] IFNAME
                                        create the interface and serve it (-- if it is named
                                        like a command)
           culvert forward ...          forward UDP ports into a tunnel, without an interface
                                        or root (see culvert forward --help)
           culvert genkey|genpsk        print a new private or preshared key
           culvert pubkey               read a private key, print its public key
           culvert budget [OPTIONS]     print the memory that these options need
           culvert selftest             verify this build on this device
           culvert bench [--seconds N]  measure this device: cipher, handshakes, packets
           culvert version

    Drop-in replacement for wireguard-go; works with wg(8) and wg-quick(8):
      culvert wg0
      wg set wg0 private-key KEYFILE peer PUBKEY endpoint HOST:51820 allowed-ips 0.0.0.0/0
      ip address add 10.0.0.2/24 dev wg0 && ip link set wg0 up
    or
      WG_QUICK_USERSPACE_IMPLEMENTATION=culvert wg-quick up wg0

    Without wg(8), from a wg-quick(8) file. Culvert sets addresses and MTU; routes are up to you:
      culvert wg0 --config wg0.conf

    A tunnel inside a tunnel, with one interface, wg0 (wg show wg0-1 shows the outer tunnel):
      culvert wg0 --config exit.conf --through entry.conf [--through ...]

    options:
      -f, --foreground       stay in the foreground
      --config FILE          keys, peers, addresses and MTU of the tunnel
      --through FILE         the same for an outer tunnel, up to 3 times, innermost first; the
                             next inner tunnel sends from its Address
      --profile NAME         tiny, standard (the default) or gateway: limits that need 0.7, 3.8
                             or 41 MB of memory with one worker (see culvert budget)
      --mtu BYTES            initial MTU of the interface (default 1420; inside other tunnels
                             it is derived from the path and follows it)
      --state-dir DIR        keeps the last handshake timestamp here, for devices without a
                             real-time clock (default /var/lib/culvert)
      --socket-buffer BYTES  receive buffer of each socket (default 1048576 with tiny, 4194304
                             with standard, 8388608 with gateway)
      --workers N            packet threads (default: one per CPU)
      --offload LIST         kernel offloads to use: checksum,tso,uso (interface) and
                             gso,gro,mmsg (sockets); or all (the default), or none
      --no-offload           the same as --offload none: one system call per packet

    limits, which override those of the profile (see culvert budget):
      --max-peers N          peers
      --max-allowed-ips N    allowed IPs, all peers together
      --max-staged N         packets per peer that wait for a handshake
      --staging-slots N      2 KB slots for these packets, all peers together
      --handshake-ring N     queued handshake messages; at one eighth or more, cookies are required
      --batch-packets N      packets per batch

    environment:
      LOG_LEVEL              verbose (or debug), error (the default), silent
      WG_TUN_FD, WG_UAPI_FD  use these open descriptors
      WG_PROCESS_FOREGROUND  1: the same as -f

    SIGUSR1 prints the counters of dropped packets by reason. SIGHUP in the background reads the
    files again and applies what has changed. SIGTERM, or deleting the interface or
    /var/run/wireguard/IFNAME.sock, ends the process and removes the interface.

    """
  }
}

/// `culvert forward --help`.
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
    culvert forward: forward local UDP ports into a tunnel, without an interface.

    usage: culvert forward --config FILE --udp LISTEN:PORT=DESTINATION:PORT ... [OPTIONS]

    Any user may run it: it opens no TUN and configures nothing in the system. It runs in the
    foreground until SIGTERM or SIGINT. For example, to reach the name server behind a tunnel:
      culvert forward --config wg.conf --udp 127.0.0.1:5353=10.0.0.1:53
      dig @127.0.0.1 -p 5353 example.com

    --config FILE            a wg-quick(8) file. Of [Interface] it uses PrivateKey, Address (the
                             source address: one per family of destinations), ListenPort, FwMark
                             and MTU; of [Peer] everything
    --udp LISTEN:PORT=DESTINATION:PORT
                             up to 32 times. Both are addresses, not names: 10.0.0.1:53,
                             [fd00::1]:53. Their families may differ. LISTEN 0.0.0.0 or [::] is
                             every address of the family; without LISTEN (:5353=10.0.0.1:53) it
                             is 127.0.0.1. The AllowedIPs of a peer must cover DESTINATION
    --through FILE           run the tunnel inside another, up to 3 times (see culvert --help)

    Each client (address and port) has a flow, and each flow has its own port inside the tunnel.
    A flow ends 180 s after its last datagram, 30 s after it if nobody ever answered, and when an
    ICMP error reports that the destination is unreachable. The next datagram of the client opens a
    new flow. If the table is full, a new flow replaces the least recently used flow that has waited
    10 s without an answer, else one that has its answer to a single question, else one that has
    been idle for 10 s. If there is none, the datagram is dropped and counted.

    If the destination's port is closed, the client gets an ICMP error (connection refused). This
    needs CAP_NET_RAW. Without it, and if the port has not answered for 10 s, all clients of LISTEN
    are refused for the next 5 s instead.

    Datagrams larger than the tunnel's MTU are fragmented. Fragments from the tunnel are reassembled
    up to 2048 bytes with --profile tiny, and up to any size otherwise.

    options:
      --max-flows N          concurrent flows (default 64 with tiny, 256 with standard, 4096 with
                             gateway)
      --state-dir DIR        keeps the last handshake timestamp here, in a file named like FILE
                             (default /var/lib/culvert: choose a directory that you can write to)
      --profile, --mtu, --workers, --offload, --socket-buffer and the limits: see culvert --help

    There is no configuration socket, because only root can write to /var/run/wireguard.
    LOG_LEVEL=verbose logs handshakes. SIGUSR1 prints the counters of flows and datagrams; they are
    also printed on exit.

    """
  }
}
