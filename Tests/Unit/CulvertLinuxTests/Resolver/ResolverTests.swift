import Culvert
import Glibc
import Testing

@testable import CulvertLinux

extension LinuxTests {
  /// Looking up names, with servers on loopback.
  @Suite struct ResolverTests {
    static let servers = "nameserver 127.0.0.1\nnameserver 127.0.0.2\nnameserver 127.0.0.3\n"

    /// What was found: the endpoint that is tried first, or why there is none.
    enum Answer: Equatable {
      case endpoint(Endpoint)
      case failure(ResolverFailure)
    }

    /// A resolver and the loop that runs it.
    final class Rig {
      var resolver: Resolver
      let epoll: Epoll
      private let region: MemoryRegion
      private static let capacity = 40

      init(_ files: ResolverFiles, timeoutMilliseconds: UInt64) {
        var measuring = Arena.measuring
        _ = ResolverMemory(carvingFrom: &measuring, capacity: Rig.capacity)
        region = try! MemoryRegion(byteCount: measuring.budget.total)
        var arena = Arena(region: region.bytes)
        let memory = ResolverMemory(carvingFrom: &arena, capacity: Rig.capacity)
        resolver = Resolver(memory, files: files, timeoutMilliseconds: timeoutMilliseconds)
        epoll = try! Epoll()
      }

      /// Adds a name; returns its index.
      func add(_ name: String, hop: Int = 0) -> Int {
        let id = PeerID(index: 0, generation: 0)
        let index = bytes(name).withUnsafeBytes {
          let name = ConfigHostName.name($0)!
          precondition(
            resolver.add(
              name, port: 51_820, of: .zero, id, hop: hop, settings: 0, at: Clock.boottime()))
          return (0..<resolver.count).last {
            resolver.name($0).elementsEqual(name) && !resolver[$0].isForgotten
          }
        }
        return index!
      }

      /// Runs until the name has an outcome.
      func answer(_ index: Int) -> Answer {
        let events = UnsafeMutableBufferPointer<EpollEvent>.allocate(capacity: 16)
        events.initialize(repeating: EpollEvent())
        defer { events.deallocate() }
        while true {
          let now = Clock.boottime()
          if resolver.deadline.isDue(at: now) { resolver.run(epoll, at: now) }
          switch resolver[index].takeOutcome() {
          case .none: break
          case .found: return .endpoint(resolver[index].choice(present: nil)!)
          case .failed(let failure): return .failure(failure)
          }
          let wait = (resolver.deadline.instant ?? now).since(now) / nanosecondsPerMillisecond + 1
          let count = epoll.wait(into: events, timeoutMilliseconds: Int32(wait))
          for event in events[..<max(0, count)] {
            resolver.handle(Token.lookup(event.token)!, epoll, at: Clock.boottime())
          }
        }
      }
    }

    /// A resolver with these files, for as long as `body` runs.
    private func withResolver<R>(
      hosts: String = "", servers: String = servers, port: UInt16 = 9,
      timeoutMilliseconds: UInt64 = 200, _ body: (Rig) throws -> R
    ) rethrows -> R {
      try withTemporaryDirectory { directory in
        write(hosts, to: directory + "/hosts")
        write(servers, to: directory + "/resolv.conf")
        return try (directory + "/hosts").withCString { hosts in
          try (directory + "/resolv.conf").withCString { configuration in
            try body(
              Rig(
                ResolverFiles(hosts: hosts, configuration: configuration, port: port),
                timeoutMilliseconds: timeoutMilliseconds))
          }
        }
      }
    }

    private func write(_ text: String, to path: String) {
      let file = FileDescriptor(taking: open(path, O_WRONLY | O_CREAT | O_TRUNC, 0o600))
      _ = bytes(text).withUnsafeBytes { file.write($0) }
    }

    private func find(_ name: String, _ rig: Rig) -> Answer { rig.answer(rig.add(name)) }

    /// The addresses found for vpn.example.org with these servers, and the questions that they
    /// received. The script in `stream`, if any, is that of the first server over TCP.
    private func ask(
      servers: String = servers, timeoutMilliseconds: UInt64 = 200,
      stream: [NameServer.Script] = [], _ scripts: NameServer.Script...
    ) -> (answer: Answer, questions: [NameServer.Question]) {
      let server = NameServer(scripts, stream: stream.first)
      defer { server.end() }
      let answer = withResolver(
        servers: servers, port: server.port, timeoutMilliseconds: timeoutMilliseconds
      ) { find("vpn.example.org", $0) }
      return (answer, server.questions)
    }

    private func four(_ bits: UInt32) -> Answer {
      .endpoint(Endpoint(address: IPAddress(ipv4: bits), port: 51_820))
    }

    private func six(_ high: UInt64, _ low: UInt64) -> Answer {
      .endpoint(Endpoint(address: IPAddress(ipv6High: high, low: low), port: 51_820))
    }

    /// A script with one address of each family; nil for none.
    private func knows(_ four: [UInt8]?, _ six: [UInt8]? = nil) -> NameServer.Script {
      { question in
        let data = question.type == 1 ? four : six
        return [
          question.answer(data.map { [NameMessage.record(type: UInt16(question.type), $0)] } ?? [])
        ]
      }
    }

    private static let documentation6: [UInt8] =
      [0x20, 1, 0x0d, 0xb8] + [UInt8](repeating: 0, count: 11) + [5]

    // MARK: Without servers

    @Test func hostsComeFirst() {
      let hosts = """
        # 127.0.0.9 a
        127.0.0.2\ta b.example  # c
          127.0.0.3 b a

        127.0.0.4 long \(String(repeating: "x", count: 2000)) d
        nonsense e
        127.0.0.5 f;
        127.0.0.300 g
        ::1 six both
        127.0.0.6 both
        ::ffff:127.0.0.7 mapped
        0.0.0.0 blocked
        127.0.0.8 LAST
        """
      withResolver(hosts: hosts) { resolver in
        #expect(find("a", resolver) == four(0x7f00_0002))
        #expect(find("B.Example.", resolver) == four(0x7f00_0002))
        #expect(find("b", resolver) == four(0x7f00_0003))
        #expect(find("six", resolver) == six(0, 1))
        #expect(find("both", resolver) == six(0, 1))
        #expect(find("mapped", resolver) == four(0x7f00_0007))
        #expect(find("last", resolver) == four(0x7f00_0008))
        for none in ["c", "d", "e", "f", "g", "blocked", "x"] {
          #expect(find(none, resolver) == .failure(.noAnswer), "\(none)")
        }
      }
    }

    @Test(.enabled(if: canMakeNamespaces)) func aRouteDecidesBetweenHosts() throws {
      let hosts = "2001:db8::5 x\n192.0.2.5 x\nfe80::1%lo zone\nfe80::1%nosuch zone2\n"
      try inFreshNamespace {
        withResolver(hosts: hosts) { resolver in
          // No route at all: IPv6 first.
          #expect(find("x", resolver) == six(0x2001_0db8_0000_0000, 5))
          shell("ip route add default dev lo")
          #expect(find("x", resolver) == four(0xc000_0205))
          shell("ip -6 route add default dev lo")
          #expect(find("x", resolver) == six(0x2001_0db8_0000_0000, 5))
          let zoned = IPAddress(ipv6High: 0xfe80 << 48, low: 1)
          #expect(
            find("zone", resolver)
              == .endpoint(Endpoint(address: zoned, port: 51_820, scope: 1)))
          #expect(find("zone2", resolver) == .failure(.noAnswer))
        }
      }
    }

    @Test func filesThatAreNotThereSayNothing() {
      "/nonexistent/x".withCString { path in
        // The default server; nothing answers on port 9.
        let resolver = Rig(
          ResolverFiles(hosts: path, configuration: path, port: 9), timeoutMilliseconds: 50)
        #expect(find("a", resolver) == .failure(.noAnswer))
      }
    }

    // MARK: With servers

    @Test func aNameIsFoundWithItsAliases() throws {
      let (answer, questions) = ask { question in
        [
          question.answer([
            NameMessage.record(type: 5, NameMessage.name("b.example.net")),
            NameMessage.record(NameMessage.name("b.example.net"), type: 1, [127, 0, 0, 5]),
          ])
        ]
      }
      #expect(answer == four(0x7f00_0005))
      #expect(questions.allSatisfy { $0.name == "vpn.example.org" })
      #expect(questions.last?.type == 1)
    }

    @Test func theDefaultServerIsThisHost() {
      for servers in ["", "# nameserver 127.0.0.2\n;nameserver 127.0.0.2\nnameserver x\n"] {
        let (answer, _) = ask(servers: servers, knows([127, 0, 0, 5]))
        #expect(answer == four(0x7f00_0005))
      }
    }

    @Test func noMoreThanThreeServers() {
      let five = (1...5).map { "NameServer\t127.0.0.\($0)  # x\n" }.joined()
      let silent: NameServer.Script = { _ in [] }
      let (answer, questions) = ask(
        servers: "options x\nsearch y\n" + five, timeoutMilliseconds: 20, silent, silent, silent,
        knows([127, 0, 0, 5]))
      #expect(answer == .failure(.noAnswer))
      // Three servers, three times, for two families.
      #expect(questions.count == 18)
      #expect(Set(questions.map(\.id)).count > 12)
    }

    /// The port of the next answer cannot be guessed.
    @Test func everyQuestionHasAPortAndAnIdOfItsOwn() {
      let (_, questions) = ask(timeoutMilliseconds: 5, { _ in [] })
      #expect(questions.count == 6)
      #expect(Set(questions.map(\.port)).count >= 5)
      #expect(Set(questions.map(\.id)).count >= 5)
      let ports = questions.map { Int($0.port) }
      #expect(zip(ports, ports.dropFirst()).contains { abs($0 - $1) > 8 })
    }

    @Test func aServerThatRefusesIsPassedOver() {
      for code in [1, 2, 4, 5] as [UInt16] {
        let (answer, _) = ask(
          { [$0.answer([], flags: 0x8180 | code)] },
          { [NameMessage(id: $0.id, flags: 0x8180 | code).bytes] }, knows([127, 0, 0, 5]))
        #expect(answer == four(0x7f00_0005))
      }
      let refusing: NameServer.Script = { [$0.answer([], flags: 0x8182)] }
      #expect(ask(timeoutMilliseconds: 20, refusing, { _ in [] }).answer == .failure(.refused))
      let garbled: NameServer.Script = { [$0.answer([[0xff]])] }
      #expect(ask(garbled, knows([127, 0, 0, 5])).answer == four(0x7f00_0005))
    }

    @Test func aServerThatIsNotThereIsPassedOverAtOnce() {
      let begin = Clock.boottime()
      // The first and the third do not listen.
      let servers = "nameserver 127.0.0.9\nnameserver 127.0.0.1\n"
      let (answer, _) = ask(servers: servers, timeoutMilliseconds: 5000, knows([127, 0, 0, 5]))
      #expect(answer == four(0x7f00_0005))
      #expect(Clock.boottime().since(begin) < 4 * nanosecondsPerSecond)
    }

    @Test func whatDoesNotFitIsAskedElsewhere() {
      let cut: NameServer.Script = { [$0.answer([], flags: 0x8380)] }
      #expect(ask(cut, knows([127, 0, 0, 5])).answer == four(0x7f00_0005))
      let (answer, questions) = ask(cut, { [$0.answer([], flags: 0x8182)] })
      #expect(answer == .failure(.truncated))
      // Two servers, three times, for two families.
      #expect(questions.count == 12)
    }

    @Test func aNameThatIsNotThereIsNotAskedForAgain() {
      let (answer, questions) = ask { [$0.answer([], flags: 0x8183)] }
      #expect(answer == .failure(.noSuchName))
      #expect(questions.count == 2)
      // A name with an address of one family exists, whatever the answer for the other family was
      // (RFC 4074).
      let half: NameServer.Script = { question in
        question.type == 28
          ? [question.answer([], flags: 0x8183)]
          : [question.answer([NameMessage.record(type: 1, [127, 0, 0, 5])])]
      }
      #expect(ask(half).answer == four(0x7f00_0005))
    }

    @Test func aNameWithoutAddresses() {
      let (answer, questions) = ask(knows(nil))
      #expect(answer == .failure(.noAddress))
      #expect(Set(questions.map(\.type)) == [1, 28])
      // Addresses that filters return for blocked names, and addresses that do not belong to a
      // single host.
      for nobody in [[0, 0, 0, 0], [224, 0, 0, 1]] as [[UInt8]] {
        let zeros = [UInt8](repeating: 0, count: 16)
        #expect(ask(knows(nobody, zeros)).answer == .failure(.noAddress))
      }
    }

    @Test func answersToOtherQuestionsAreWaitedOut() {
      let (answer, questions) = ask { question in
        guard question.type == 1 else { return [question.answer([])] }
        let lie = [NameMessage.record(type: 1, [6, 6, 6, 6])]
        var wrong = NameMessage(id: question.id ^ 1, questions: [question.bytes], answers: lie)
        let first = wrong.bytes
        wrong.id = question.id
        wrong.questions = [NameMessage.question("vpn.example.com", type: 1)]
        let right = question.answer([NameMessage.record(type: 1, [127, 0, 0, 5])])
        return [[], [1], first, wrong.bytes, Array(right.dropLast(40)), right]
      }
      #expect(answer == four(0x7f00_0005))
      #expect(questions.filter { $0.type == 1 }.count == 1)
    }

    /// Another socket of the same host answers first, with the right id.
    @Test func answersFromElsewhereAreNotHeard() {
      let other = socket(AF_INET, Int32(SOCK_DGRAM.rawValue), 0)
      defer { close(other) }
      let (answer, _) = ask { question in
        let lie = question.answer([NameMessage.record(type: 1, [6, 6, 6, 6])])
        var target = NameServer.address(0x7f00_0001, question.port)
        withUnsafePointer(to: &target) {
          $0.withMemoryRebound(to: sockaddr.self, capacity: 1) {
            _ = sendto(other, lie, lie.count, 0, $0, 16)
          }
        }
        usleep(5000)
        return [question.answer([NameMessage.record(type: 1, [127, 0, 0, 5])])]
      }
      #expect(answer == four(0x7f00_0005))
    }

    @Test func aLateAnswerComesAtTheNextTry() {
      let (answer, questions) = ask(timeoutMilliseconds: 50) { question in
        question.number < 2
          ? [] : [question.answer([NameMessage.record(type: 1, [127, 0, 0, 5])])]
      }
      #expect(answer == four(0x7f00_0005))
      #expect(questions.count >= 3)
    }

    @Test(.enabled(if: canMakeNamespaces)) func theFamilyWithARouteComesFirst() throws {
      let both = knows([192, 0, 2, 5], Self.documentation6)
      try inFreshNamespace {
        // No route to either: the first one found is used, which is IPv4.
        var (answer, questions) = ask(both)
        #expect(answer == four(0xc000_0205))
        #expect(questions.map(\.type) == [1])
        // Only an IPv6 address is known, and used although there is no route yet.
        #expect(ask(knows(nil, Self.documentation6)).answer == six(0x2001_0db8_0000_0000, 5))
        shell("ip route add default dev lo")
        (answer, questions) = ask(both)
        #expect(answer == four(0xc000_0205))
        #expect(questions.map(\.type) == [1])
        shell("ip -6 route add default dev lo")
        (answer, questions) = ask(both)
        #expect(answer == six(0x2001_0db8_0000_0000, 5))
        #expect(questions.map(\.type) == [28, 1])
        // And back to IPv4 if the name has nothing else.
        (answer, questions) = ask(knows([192, 0, 2, 5]))
        #expect(answer == four(0xc000_0205))
        #expect(questions.map(\.type) == [28, 1])
        // Of several addresses, the first one with a route.
        shell("ip route del default")
        let several: NameServer.Script = { question in
          [
            question.answer(
              question.type == 28
                ? []
                : [[192, 0, 2, 5], [127, 0, 0, 5], [127, 0, 0, 6]].map {
                  NameMessage.record(type: 1, $0)
                })
          ]
        }
        #expect(ask(several).answer == four(0x7f00_0005))
      }
    }

    // MARK: R44, R62

    @Test func R62_anAnswerThatIsTooLongComesOverTCP() {
      let cut: NameServer.Script = { [$0.answer([], flags: 0x8380)] }
      var (answer, questions) = ask(stream: [knows([127, 0, 0, 5])], cut)
      #expect(answer == four(0x7f00_0005))
      #expect(questions.contains { $0.isStream && $0.type == 1 })
      // More than there is room for.
      let many = (0..<200).map { NameMessage.record(type: 1, [127, 0, 1, $0]) }
      (answer, questions) = ask(stream: [{ [$0.answer($0.type == 1 ? many : [])] }], cut)
      #expect(answer == four(0x7f00_0100))
      // An answer to another question, or the end of the connection: the next server is asked.
      let wrong: NameServer.Script = { [NameMessage(id: $0.id ^ 1).bytes] }
      #expect(ask(stream: [wrong], cut, knows([127, 0, 0, 6])).answer == four(0x7f00_0006))
      #expect(ask(stream: [{ _ in [] }], cut, knows([127, 0, 0, 6])).answer == four(0x7f00_0006))
    }

    @Test func R62_aCutAnswerWithAnAddressNeedsNoTCP() {
      let (answer, questions) = ask(stream: [{ _ in [] }]) {
        [
          $0.answer(
            $0.type == 1 ? [NameMessage.record(type: 1, [127, 0, 0, 5])] : [],
            flags: $0.type == 1 ? 0x8380 : 0x8180)
        ]
      }
      #expect(answer == four(0x7f00_0005))
      #expect(questions.allSatisfy { !$0.isStream })
    }

    @Test func R62_aServerWithoutEDNSIsAskedWithoutIt() {
      let (answer, questions) = ask { question in
        question.hasEDNS
          ? [question.answer([], flags: 0x8181)]
          : [question.answer([NameMessage.record(type: 1, [127, 0, 0, 5])])]
      }
      #expect(answer == four(0x7f00_0005))
      #expect(questions.contains { $0.hasEDNS })
    }

    @Test func R62_aDeadFirstServerIsRemembered() {
      let server = NameServer([{ _ in [] }, knows([127, 0, 0, 5])])
      defer { server.end() }
      withResolver(port: server.port, timeoutMilliseconds: 50) { rig in
        #expect(find("a.example", rig) == four(0x7f00_0005))
        let before = server.questions.count
        for name in ["b.example", "c.example"] {
          #expect(find(name, rig) == four(0x7f00_0005))
        }
        #expect(server.questions.dropFirst(before).allSatisfy { $0.server == 1 })
        #expect(server.questions.prefix(before).contains { $0.server == 0 })
      }
    }

    /// Four dead names do not delay a fifth by more than one of their lookups takes.
    @Test func R44_namesAreLookedUpAtTheSameTime() {
      let server = NameServer([
        { question in
          question.name.hasPrefix("dead")
            ? [] : [question.answer([NameMessage.record(type: 1, [127, 0, 0, 5])])]
        }
      ])
      defer { server.end() }
      let one = "nameserver 127.0.0.1\n"
      withResolver(servers: one, port: server.port, timeoutMilliseconds: 100) { rig in
        let dead = (0..<3).map { rig.add("dead\($0).example") }
        let begin = Clock.boottime()
        #expect(rig.answer(rig.add("alive.example")) == four(0x7f00_0005))
        #expect(Clock.boottime().since(begin) < 90 * nanosecondsPerMillisecond)
        for index in dead { #expect(rig.answer(index) == .failure(.noAnswer)) }
        // Two families, three times each, and not one after the other.
        #expect(Clock.boottime().since(begin) < 1500 * nanosecondsPerMillisecond)
        // More dead names than lookups at a time.
        let more = (0..<6).map { rig.add("dead\($0).more") } + [rig.add("late.example")]
        #expect(rig.answer(more[6]) == four(0x7f00_0005))
      }
    }

    /// A name without an address is looked up until it has one, with growing pauses.
    @Test func R44_aDeadNameIsLookedUpAgain() {
      let server = NameServer([
        { question in
          question.number < 2
            ? [question.answer([], flags: 0x8183)]
            : [question.answer([NameMessage.record(type: 1, [127, 0, 0, 5])])]
        }
      ])
      defer { server.end() }
      withResolver(port: server.port) { rig in
        let index = rig.add("a.example")
        let begin = Clock.boottime()
        #expect(rig.answer(index) == .failure(.noSuchName))
        #expect(rig.answer(index) == four(0x7f00_0005))
        let waited = Clock.boottime().since(begin) / nanosecondsPerMillisecond
        #expect(waited > 800 && waited < 2500, "\(waited)")
        // Now nothing is due.
        #expect(!rig.resolver.deadline.isSet)
      }
    }

    @Test func R58_namesAreReplaced() {
      let record = NameMessage.record(type: 1, [127, 0, 0, 5])
      let server = NameServer([{ $0.name < "dead" ? [$0.answer([record])] : [] }])
      defer { server.end() }
      withResolver(port: server.port, timeoutMilliseconds: 1000) { rig in
        // Names go and come, also while they are looked up.
        let other = rig.add("a.example", hop: 1)
        for _ in 0..<20 {
          for number in 0..<10 { _ = rig.add("dead\(number).example") }
          rig.resolver.run(rig.epoll, at: Clock.boottime())
          rig.resolver.removeNames(of: 0)
        }
        #expect(rig.answer(other) == four(0x7f00_0005))
        #expect(rig.answer(rig.add("b.example")) == four(0x7f00_0005))
      }
    }

    @Test func failuresOfBothFamilies() {
      let all: [ResolverFailure] = [.noSuchName, .noAddress, .truncated, .refused, .noAnswer]
      for failure in all {
        #expect(failure.combined(with: .noAddress) == failure)
        #expect(ResolverFailure.noAddress.combined(with: failure) == failure)
        #expect(failure.combined(with: .noSuchName) == .noSuchName)
        #expect(ResolverFailure.noSuchName.combined(with: failure) == .noSuchName)
      }
    }
  }
}
