import CulvertLinux

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
