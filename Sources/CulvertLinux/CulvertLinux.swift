// A map of the shell: its flows, and the file that contains each step. This file has no code.
//
// The shell connects the core (../Culvert/Culvert.swift) to Linux: TUN, UDP sockets, netlink and
// the configuration socket. Loop/Driver is shared by all workers, and Loop/EventLoop is used only
// by the leader. Hops/Hops contains the nested tunnels (usually one), and Lanes/Gates the locks.
//
//   start-up                                       called by culvert/CulvertMain
//     Start/Service          run                    memory, TUN, configuration sockets, driver
//     Start/Process          Daemon.fork            goes into the background; the caller waits
//     Loop/DriverMemory      init                   carves everything from one arena
//     Loop/Driver            make, start            descriptors; measures the cipher
//                                                   (Crypto/TransportCipher) and tests the offloads
//                                                   (Devices/Offloads)
//     Loop/EventLoop         start                  registers descriptors with epoll
//     Hops/Hops+Configuration                       applies the files (ConfigFile/ConfigFile), and
//                                                   gives host names to Resolver/Resolver
//     Loop/Worker            start, run             threads; the arena is sealed, and nothing is
//                                                   allocated afterwards
//
//   event loop                                      Loop/Worker, by the worker that leads
//     Loop/Worker            serveEvents            one round: timers, wait, control, lanes
//     Loop/EventLoop         runTimers              handshakes and timers of all hops
//     Loop/EventLoop         wait                   arms the timer (Events/Timer), waits
//                                                   (Events/Epoll)
//     Loop/EventLoop         handle                 control events, below
//     Loop/Worker            serveTUN, serveSocket, serveClients
//                                                   up to four batches; a large one gives up
//                                                   the lead, except in serveClients
//
//   outbound  TUN -> network                        Loop/Worker serveTUN
//     Lanes/OutboundLane     read                   leader: fills the batch (Devices/TunDevice)
//     Lanes/OutboundLane     plan                   tunnel's lock: Tunnel/Tunnel+Outbound
//     Loop/EventLoop         outboundTicket         the batch's place in the order (Lanes/Gates)
//     Lanes/OutboundLane     send                   loop over the hops: seal without a lock; in
//                                                   ticket order send (Lanes/DatagramSender,
//                                                   Devices/UDPSockets), then emit with the lock
//
//   inbound  network -> TUN                         Loop/Worker serveSocket
//     Lanes/InboundLane      receive                leader: fills the batch (Devices/UDPSockets)
//     Lanes/InboundLane      accept                 tunnel's lock: Tunnel/Tunnel+Inbound
//     Loop/EventLoop         inboundTicket
//     Lanes/InboundLane      deliver                loop over the hops: open without a lock; in
//                                                   ticket order deliver with the lock, then write
//                                                   (Devices/TunDevice) or answer clients
//
//   forward  clients <-> tunnel, without a TUN      Loop/Worker serveClients
//     Hops/Forwarding        receive, fill          clients' datagrams become packets
//     Lanes/OutboundLane     planDatagrams, send    as outbound
//     Hops/Forwarding        collectAnswers, sendAnswers
//                                                   called by Lanes/InboundLane; refusals of
//                                                   closed ports by Devices/RefusalSocket
//
//   control                                         Loop/EventLoop handle; no batch is in flight
//     Control/UAPIServer     accept, serve          connections of wg(8); Control/UAPIConnection
//                                                   reads lines (Configuration/UAPIParser),
//                                                   applies the device's to Hops/Interface and a
//                                                   peer's through ConfigFile/PeerSection
//     Devices/Netlink        next                   MTU, up and down, name, namespace; then
//                                                   Hops/Interface apply
//     Loop/Driver            runResolver, serveLookup, noticeHandshake
//                                                   host names of endpoints: Resolver/Resolver does
//                                                   the I/O, Resolver/NameLookup asks the servers,
//                                                   Resolver/NamedPeer decides when
//     Devices/NetworkNews    read                   links, addresses, routes, rules; then
//                                                   Loop/EventLoop networkChanged, checkSources
//     Helper/Helper          receive                replies of the process that may block: state
//                                                   files, and names of files read again; then
//                                                   Loop/Driver applyReplies
//     Hops/Hops+MTU          updateMTU              MTUs of hops, from the route inward
//     Events/Signals         next                   end, counters, or read the files again:
//                                                   Start/Reload, in a process of its own, is a
//                                                   client (Control/UAPIClient) of this one
//
//   shutdown                                        Loop/EventLoop stop
//     Loop/Worker            run                    each worker ends when it gets the lead; joined
//     Loop/Driver            run, destroy           stores the handshake timestamps
//                                                   (Helper/TimestampFile); removes the files of
//                                                   the sockets
//
// Layers: each folder uses only the folders beside it. `make layers` reads this table.
//
//   Devices          nothing
//   Helper           Devices
//   Text             Devices
//   Events           Devices
//   Resolver         Devices, Text, Events
//   ConfigFile       Devices, Text, Events, Resolver
//   Hops             Devices, Helper, Text, Events, Resolver, ConfigFile
//   Lanes            Devices, Helper, Text, Events, Resolver, ConfigFile, Hops
//   Control          Devices, Helper, Text, Events, Resolver, ConfigFile, Hops
//   Loop             all of these
//   Start            all of these
