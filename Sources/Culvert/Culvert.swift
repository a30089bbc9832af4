// The map of the core: its flows, and the file that each step stands in. Nothing else is here.
//
// The core does no I/O. Datagrams and packets come and go in batches, time and entropy are
// parameters, memory is one arena (Memory/Arena). The shell in CulvertLinux calls it:
//
//   out   TUN -> network                            CulvertLinux/OutboundLane
//         Tunnel/OutboundBatch    room, append      packets are read into the batch
//         Tunnel/Tunnel+Outbound  plan              Wire/InnerPacket, Routing/AllowedIPs,
//                                                   Noise/Keypairs; or stage, or an ICMP error
//         Tunnel/OutboundBatch+Seal  seal           Wire/Segmenter cuts, Crypto/TransportCipher
//                                                   encrypts, without the tunnel
//         Tunnel/BatchOutputs     output, run       the shell sends
//         Tunnel/Tunnel+Outbound  emit              Tunnel/Timers, Tunnel/Counters
//
//   in    network -> TUN                            CulvertLinux/InboundLane
//         Tunnel/InboundBatch     room, append      datagrams are received into the batch
//         Tunnel/Tunnel+Inbound   accept            Wire/MessageType, Routing/IndexTable
//         Tunnel/InboundBatch+Open  open            Crypto/TransportCipher, without the tunnel;
//                                                   Tunnel/JoinCandidate
//         Tunnel/Tunnel+Inbound   deliver           Noise/ReplayWindow, Routing/AllowedIPs,
//                                                   roaming, Tunnel/Timers
//         Tunnel/InboundBatch+Open  join, finish    Tunnel/Joiner; the shell writes
//
//   a tunnel in a tunnel                            CulvertLinux/Hops
//         Channel/Nesting         carry             what one tunnel's lane has made is the other's
//         Channel/DatagramChannel send, receive     input, where it stands: Wire/UDPHeader,
//                                                   Wire/Fragmenter, Reassembly/Reassembler
//
//   handshakes                                      accept -> Memory/SlotRing -> advance
//         Tunnel/Tunnel+Handshakes                  Noise/CookieChecker (mac1, mac2, load),
//                                                   Noise/RateLimiter, Noise/Handshake
//
//   time  nextDeadline, advance                     Tunnel/Schedule, Tunnel/Tunnel+Timers
//
//   configuration                                   Configuration/UAPIParser over lines,
//                                                   Tunnel/Tunnel+Configuration, +Status
//
//   on the device itself                            culvert/SelftestCommand, BenchCommand
//         Selftest/Selftest       run               Selftest/SelftestRun, a file for each subject
//         Selftest/Bench          packets, ...      Selftest/Loopback, two tunnels and no network
//
// `@inline(never)` with no reason beside it: there are several callers, none of them once for each
// packet of a batch, and a copy in each is what a small board's flash has no room for. What moves
// packets is inlined.
//
// Layers, checked by `make layers`; each folder sees only those named:
//
//   Limits, Time     nothing
//   Memory, Wire     Limits
//   Crypto           Limits, CSodium
//   Noise            Limits, Memory, Time, Wire, Crypto
//   Routing          Limits, Memory, Wire
//   Configuration    Limits, Wire, Crypto
//   Reassembly       Limits, Memory, Time, Wire
//   Tunnel           all of these but Configuration and Reassembly
//   Channel          all of these but Configuration
//   Selftest         all of these but Channel
