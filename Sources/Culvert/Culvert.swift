// An overview of the core: its data flows, and the file of each step. This file has no code.
//
// The core does no I/O. The shell (CulvertLinux) passes packets and datagrams in batches, together
// with the time and entropy. Afterwards it sends or writes the output of the batches. All memory
// comes from one arena (Memory/Arena).
//
//   outbound  TUN -> network                        called by CulvertLinux/Lanes/OutboundLane
//     Batches/OutboundBatch     room, append        the shell reads packets into the batch
//     Tunnel/Tunnel+Outbound    plan                parse (Wire/InnerPacket), route
//                                                   (Routing/AllowedIPs), reserve counters
//                                                   (Noise/Keypairs); or stage the packet, or
//                                                   answer it with an ICMP error
//     Batches/OutboundBatch     seal                segment (Segments/Segmenter) and encrypt
//                                                   (Crypto/TransportCipher), without the tunnel
//     Batches/OutboundBatch     output, runLength   the shell sends the datagrams
//     Tunnel/Tunnel+Outbound    emit                update timers and counters (Tunnel/Timers,
//                                                   Tunnel/Verdict)
//
//   inbound  network -> TUN                         called by CulvertLinux/Lanes/InboundLane
//     Batches/InboundBatch      room, append        the shell receives datagrams into the batch
//     Tunnel/Tunnel+Inbound     accept              validate (Wire/Messages), find the session
//                                                   (Routing/IndexTable)
//     Batches/InboundBatch      open                decrypt (Crypto/TransportCipher), without the
//                                                   tunnel; find packets that can be joined
//                                                   (Segments/JoinCandidate)
//     Tunnel/Tunnel+Inbound     deliver             check the replay window
//                                                   (Noise/ReplayWindow) and the source
//                                                   (Routing/AllowedIPs); roaming, timers
//     Batches/InboundBatch      join, finish        join segments (Segments/Joiner); the shell
//                                                   writes the packets
//
//   a tunnel inside a tunnel                        called by the lanes, hop by hop
//     Channel/DatagramChannel+Nesting  wrap,        from one tunnel's batch to the other's
//                               unwrap
//     Channel/DatagramChannel+Send, +Receive        UDP and IP headers (Wire), fragments
//                                                   (Fragments/Fragmenter, Fragments/Reassembler,
//                                                   Fragments/Reassembler+Datagrams)
//
//   UDP ports without a TUN                         called by CulvertLinux/Hops/Forwarding
//     Channel/Forwarder         forward,            a flow for each client (Channel/FlowTable)
//                               collectAnswers
//
//   timers and handshakes                           called by the shell at nextDeadline
//     Tunnel/Tunnel+Timers      runTimers           due timers (Tunnel/Schedule, Tunnel/Timers)
//     Tunnel/Tunnel+Handshakes  serveHandshakes     messages queued by accept: cookies under load
//                                                   (Noise/Cookies), rate limit
//                                                   (Noise/RateLimiter), Noise/Handshake
//
//   configuration                                   Configuration/LineReader finds lines,
//                                                   Configuration/UAPIParser parses them,
//                                                   Tunnel/Tunnel+Configuration applies them
//
//   selftest and bench on the device                Selftest/Selftest, Selftest/Bench. Both use
//                                                   Selftest/Loopback: two tunnels, no network
//
// Layers: each folder may use only the folders listed next to it. `make layers` reads this table.
//
//   Limits           -
//   Time             Limits
//   Memory           Limits
//   Wire             Limits
//   Crypto           Limits, Memory
//   Segments         Limits, Memory, Wire
//   Fragments        Limits, Time, Memory, Wire
//   Noise            Limits, Time, Memory, Wire, Crypto
//   Routing          Limits, Memory, Wire
//   Configuration    Limits, Memory, Wire, Crypto
//   Batches          Limits, Memory, Wire, Crypto, Segments, Routing
//   Tunnel           Limits, Time, Memory, Wire, Crypto, Segments, Noise, Routing, Batches
//   Channel          Limits, Time, Memory, Wire, Crypto, Segments, Fragments, Noise, Routing,
//                    Batches, Tunnel
//   Selftest         Limits, Time, Memory, Wire, Crypto, Segments, Fragments, Noise, Routing,
//                    Configuration, Batches, Tunnel, Channel
