import Culvert
import Glibc
import Testing

@testable import CulvertLinux

extension LinuxTests {
  @Suite struct UAPIServerTests {
    // MARK: Listing

    /// 2,000 peers, of which some are removed whenever the reply waits for its reader, also those
    /// that come next, and others are added in their places.
    @Test(arguments: 1...3)
    func R48_everyPeerThatStaysIsListedOnce(seed: Int) throws {
      let device = try ControlDevice()
      for number in 0..<2000 { device.addPeer(number, allowedIPs: number % 3) }
      var random = RandomNumbers(seed: UInt64(seed))
      var gone: Set<Int> = []
      var added = 2000
      let listing = try Listing(device)
      let lines = try listing.read {
        let last = listing.lastNumber ?? 0
        var victims = (0..<20).map { _ in random.below(2000) }
        // Those at the position of the listing, and a run after it.
        if random.below(2) == 0 { victims += last...last + random.below(6) }
        for number in victims where gone.insert(number).inserted && gone.count < 1500 {
          device.removePeer(number)
          if random.below(2) == 0 {
            device.addPeer(added, allowedIPs: 1)
            added += 1
          }
        }
      }
      #expect(lines.last == "errno=0")
      let counts = ControlDevice.peerCounts(in: lines)
      for number in 0..<2000 where !gone.contains(number) {
        #expect(counts[number] == 1, "peer \(number)")
        #expect(ControlDevice.allowedIPCount(of: number, in: lines) == number % 3)
      }
      #expect(counts.values.allSatisfy { $0 == 1 })
      #expect(gone.count > 200)
    }

    @Test func R48_aListThatLosesAPrefixEndsWithAnErrno() throws {
      let device = try ControlDevice()
      for number in 0..<4 { device.addPeer(number, allowedIPs: 500) }
      let listing = try Listing(device)
      var isFirst = true
      let lines = try listing.read {
        if isFirst { device.removeFirstAllowedIP(of: listing.lastNumber ?? 0) }
        isFirst = false
      }
      #expect(lines.last == "errno=-11")
    }

    @Test func R48_prefixesOfOtherPeersMayChangeMeanwhile() throws {
      let device = try ControlDevice()
      for number in 0..<4 { device.addPeer(number, allowedIPs: 500) }
      let listing = try Listing(device)
      let lines = try listing.read { device.removePeer(3) }
      #expect(lines.last == "errno=0")
      for number in 0..<3 {
        #expect(ControlDevice.allowedIPCount(of: number, in: lines) == 500)
      }
    }

    // MARK: Clients that stop

    @Test func R56_aClientThatStopsHalfWayIsClosedAfterTenSeconds() throws {
      try withControlServer { server in
        let idle = server.connect()
        #expect(server.ask(idle, "get=1\n\n") == "errno=0\n\n")
        // Nobody is half way, so nothing wakes the process up.
        #expect(server.server.nextDeadline == .never)
        let client = server.connect()
        server.send(client, "set=1\nlisten_port=")
        #expect(server.server.nextDeadline == .after(10 * second, from: server.now))
        server.advance(by: 9 * second)
        server.send(client, "1")
        server.advance(by: 10 * second - 1)
        #expect(server.isOpen(client))
        server.advance(by: 1)
        #expect(!server.isOpen(client))
        #expect(server.server.nextDeadline == .never)
        server.advance(by: 3600 * second)
        #expect(server.ask(idle, "get=1\n\n") == "errno=0\n\n")
      }
    }

    @Test func R56_aClientThatDoesNotReadIsClosed() throws {
      try withControlServer { server in
        for number in 0..<300 { server.device.addPeer(number, allowedIPs: 0) }
        let client = server.connect()
        server.send(client, String(repeating: "get=1\n\n", count: 20))
        #expect(server.server.nextDeadline != .never)
        server.advance(by: 10 * second)
        #expect(server.server.nextDeadline == .never)
        // It gets what was sent before, and then the end.
        #expect(server.readToEnd(client))
      }
    }

    @Test func R56_aSetWaitsForAnotherOnlyAsLongAsThatGoesOn() throws {
      try withControlServer { server in
        let first = server.connect()
        server.send(first, "set=1\n")
        let waiting = server.connect()
        server.send(waiting, "set=1\nlisten_port=7\n\n")
        #expect(server.received(waiting) == "")
        server.advance(by: 10 * second)
        #expect(server.received(waiting) == "errno=0\n\n")
        #expect(!server.isOpen(first))
        #expect(server.device.interface.listenPort == 7)
      }
    }

    /// Eight clients in the middle of a request do not lock the others out.
    @Test func R56_aNewClientDisplacesOneThatHasStopped() throws {
      try withControlServer { server in
        let stopped = (0..<UAPIServer.maximumConnections).map { _ in
          let client = server.connect()
          server.send(client, "get=1\n")
          return client
        }
        let client = server.connect()
        server.send(client, "get=1\n\n")
        #expect(server.received(client) == "")
        server.advance(by: second)
        #expect(server.received(client) == "errno=0\n\n")
        // Only one was closed, the one that had stopped for longest.
        #expect(stopped.map { server.isOpen($0) } == [false] + Array(repeating: true, count: 7))
      }
    }

    @Test func R56_aSetThatEndsWithTheStreamIsAnswered() throws {
      try withControlServer { server in
        let client = server.connect()
        server.send(client, "set=1\nlisten_port=8\n\nset=1\nlisten_port=9\n")
        server.endSending(client)
        #expect(server.received(client) == "errno=0\n\nerrno=0\n\n")
        #expect(!server.isOpen(client))
        #expect(server.device.interface.listenPort == 9)
      }
    }

    @Test func R56_aLineThatIsCutOffFailsTheRequest() throws {
      try withControlServer { server in
        let key = ControlDevice.hexadecimalKey(1)
        let client = server.connect()
        server.send(client, "set=1\npublic_key=\(key)\nallowed_ip=10.0.0.0/2")
        server.endSending(client)
        #expect(server.received(client) == "errno=-5\n\n")
        #expect(!server.isOpen(client))
        #expect(server.device.interface.tunnel.peerCount == 0)
      }
    }

    /// A client that was killed between two lines leaves no half of a peer.
    @Test func R56_aSetOfAClientThatIsGoneChangesNothing() throws {
      try withControlServer { server in
        let key = ControlDevice.hexadecimalKey(1)
        let client = server.connect()
        server.send(client, "set=1\npublic_key=\(key)\nallowed_ip=10.0.0.0/24\n")
        server.disconnect(client)
        #expect(server.device.interface.tunnel.peerCount == 0)
        #expect(server.server.nextDeadline == .never)
      }
    }

    @Test func aRequestThatFailsLeavesAnothersSectionAlone() throws {
      try withControlServer { server in
        let key = ControlDevice.hexadecimalKey(1)
        let setting = server.connect()
        server.send(setting, "set=1\npublic_key=\(key)\nallowed_ip=10.0.0.0/24\n")
        let wrong = server.connect()
        #expect(server.ask(wrong, "get=1\nx\n\n") == "errno=-22\n\n")
        #expect(server.ask(setting, "\n") == "errno=0\n\n")
        let listed = server.ask(wrong, "get=1\n\n")
        #expect(listed.contains("allowed_ip=10.0.0.0/24"))
      }
    }

    private let second = nanosecondsPerSecond
  }
}
