import Culvert
import Glibc

/// Name servers on loopback addresses with one port, each with a script. They run on their own
/// thread in the creator's network namespace.
final class NameServer: @unchecked Sendable {
  /// A received question.
  struct Question {
    var id: UInt16
    var name: String
    var type: UInt16
    /// Name, type and class as received.
    var bytes: [UInt8]
    /// The port that it came from.
    var port: UInt16
    /// Counted from 0 over all servers.
    var number: Int
    /// The server that was asked, counted from 0.
    var server: Int
    /// Whether the query has additional records.
    var hasEDNS: Bool
    var isStream: Bool

    /// An answer with records for the question's name.
    func answer(_ records: [[UInt8]], flags: UInt16 = 0x8180) -> [UInt8] {
      NameMessage(id: id, flags: flags, questions: [bytes], answers: records).bytes
    }
  }

  /// What a server sends back: any number of datagrams.
  typealias Script = (Question) -> [[UInt8]]

  let port: UInt16
  private let sockets: [Int32]
  /// Listening over TCP, at the first server's address; -1 for none.
  private let listener: Int32
  private let stream: Script?
  private let scripts: [Script]
  private var thread = pthread_t()
  private var stop: [Int32] = [0, 0]
  private var mutex = pthread_mutex_t()
  private var seen: [Question] = []

  /// One server at 127.0.0.1, one at 127.0.0.2, and so on.
  ///
  /// - Parameter stream: what the first one sends back over TCP, if it listens there.
  init(_ scripts: [Script], stream: Script? = nil) {
    self.scripts = scripts
    self.stream = stream
    var sockets: [Int32] = []
    var port: UInt16 = 0
    for index in scripts.indices {
      let udp = socket(AF_INET, Int32(SOCK_DGRAM.rawValue), 0)
      var local = NameServer.address(0x7f00_0001 + UInt32(index), port)
      var length = socklen_t(MemoryLayout<sockaddr_in>.size)
      withUnsafeMutablePointer(to: &local) {
        $0.withMemoryRebound(to: sockaddr.self, capacity: 1) {
          precondition(bind(udp, $0, length) == 0)
          getsockname(udp, $0, &length)
        }
      }
      port = UInt16(bigEndian: local.sin_port)
      sockets.append(udp)
    }
    self.sockets = sockets
    self.port = port
    listener = stream == nil ? -1 : NameServer.listen(port)
    pthread_mutex_init(&mutex, nil)
    precondition(pipe(&stop) == 0)
    let context = Unmanaged.passUnretained(self).toOpaque()
    pthread_create(
      &thread, nil,
      { context in
        Unmanaged<NameServer>.fromOpaque(context!).takeUnretainedValue().serve()
        return nil
      }, context)
  }

  /// Ends the thread; must be called before the last reference is dropped.
  func end() {
    close(stop[1])
    pthread_join(thread, nil)
    close(stop[0])
    for socket in sockets { close(socket) }
    if listener >= 0 { close(listener) }
    pthread_mutex_destroy(&mutex)
  }

  /// The questions so far.
  var questions: [Question] {
    pthread_mutex_lock(&mutex)
    defer { pthread_mutex_unlock(&mutex) }
    return seen
  }

  static func address(_ bits: UInt32, _ port: UInt16) -> sockaddr_in {
    var address = sockaddr_in()
    address.sin_family = sa_family_t(AF_INET)
    address.sin_addr.s_addr = bits.bigEndian
    address.sin_port = port.bigEndian
    return address
  }

  private func serve() {
    while true {
      var ready = sockets.map { pollfd(fd: $0, events: Int16(POLLIN), revents: 0) }
      // Negative descriptors are ignored.
      ready.append(pollfd(fd: listener, events: Int16(POLLIN), revents: 0))
      ready.append(pollfd(fd: stop[0], events: Int16(POLLIN), revents: 0))
      poll(&ready, nfds_t(ready.count), -1)
      if ready.last!.revents != 0 { return }
      for index in sockets.indices where ready[index].revents != 0 { answer(index) }
      if ready[sockets.count].revents != 0 { answerStream() }
    }
  }

  private func answer(_ index: Int) {
    var buffer = [UInt8](repeating: 0, count: 2048)
    var sender = sockaddr_in()
    var length = socklen_t(MemoryLayout<sockaddr_in>.size)
    let count = withUnsafeMutablePointer(to: &sender) {
      $0.withMemoryRebound(to: sockaddr.self, capacity: 1) {
        recvfrom(sockets[index], &buffer, buffer.count, 0, $0, &length)
      }
    }
    guard count > 16 else { return }
    let question = read(buffer, UInt16(bigEndian: sender.sin_port), index)
    for datagram in scripts[index](question) {
      withUnsafePointer(to: &sender) {
        $0.withMemoryRebound(to: sockaddr.self, capacity: 1) {
          _ = sendto(sockets[index], datagram, datagram.count, 0, $0, length)
        }
      }
    }
  }

  private static func listen(_ port: UInt16) -> Int32 {
    let tcp = socket(AF_INET, Int32(SOCK_STREAM.rawValue), 0)
    var yes: Int32 = 1
    setsockopt(tcp, SOL_SOCKET, SO_REUSEADDR, &yes, 4)
    var local = address(0x7f00_0001, port)
    withUnsafePointer(to: &local) {
      $0.withMemoryRebound(to: sockaddr.self, capacity: 1) {
        precondition(bind(tcp, $0, 16) == 0)
      }
    }
    precondition(Glibc.listen(tcp, 8) == 0)
    return tcp
  }

  /// Serves one connection: the query, and the answer in two pieces.
  private func answerStream() {
    let tcp = accept(listener, nil, nil)
    defer { close(tcp) }
    var buffer = [UInt8](repeating: 0, count: 2048)
    guard let stream, recv(tcp, &buffer, buffer.count, 0) > 18 else { return }
    let question = read(Array(buffer[2...]), 0, 0, isStream: true)
    for message in stream(question) {
      let bytes = NameMessage.word(UInt16(message.count)) + message
      let half = bytes.count / 2
      bytes.withUnsafeBytes { _ = send(tcp, $0.baseAddress!, half, 0) }
      usleep(2000)
      bytes.withUnsafeBytes { _ = send(tcp, $0.baseAddress! + half, bytes.count - half, 0) }
    }
  }

  private func read(
    _ buffer: [UInt8], _ port: UInt16, _ server: Int, isStream: Bool = false
  ) -> Question {
    var name: [String] = []
    var position = 12
    while buffer[position] != 0 {
      let end = position + 1 + Int(buffer[position])
      name.append(String(decoding: buffer[(position + 1)..<end], as: UTF8.self))
      position = end
    }
    pthread_mutex_lock(&mutex)
    let question = Question(
      id: UInt16(buffer[0]) << 8 | UInt16(buffer[1]), name: name.joined(separator: "."),
      type: UInt16(buffer[position + 2]), bytes: Array(buffer[12..<(position + 5)]), port: port,
      number: seen.count, server: server, hasEDNS: buffer[11] > 0,
      isStream: isStream)
    seen.append(question)
    pthread_mutex_unlock(&mutex)
    return question
  }
}

/// DNS messages for tests, built byte by byte.
struct NameMessage {
  var id: UInt16
  /// Response, recursion desired and available.
  var flags: UInt16 = 0x8180
  var questions: [[UInt8]] = []
  var answers: [[UInt8]] = []
  /// The counts in the header, if they are to be wrong.
  var questionCount: Int?
  var answerCount: Int?
  var authorityCount = 0

  /// A pointer to the question's name after the header, used as the owner of records.
  static let pointerToQuestion: [UInt8] = [0xc0, 12]

  var bytes: [UInt8] {
    let counts = [
      questionCount ?? questions.count, answerCount ?? answers.count, authorityCount, 0,
    ]
    return ([id, flags] + counts.map { UInt16($0) }).flatMap(NameMessage.word)
      + questions.flatMap { $0 } + answers.flatMap { $0 }
  }

  static func word(_ value: UInt16) -> [UInt8] { [UInt8(value >> 8), UInt8(value & 255)] }

  /// Labels with their lengths, and the root.
  static func name(_ text: String) -> [UInt8] {
    text.split(separator: ".").flatMap { [UInt8($0.utf8.count)] + Array($0.utf8) } + [0]
  }

  static func question(_ name: String, type: UInt16, kind: UInt16 = 1) -> [UInt8] {
    self.name(name) + word(type) + word(kind)
  }

  static func record(
    _ owner: [UInt8] = pointerToQuestion, type: UInt16, kind: UInt16 = 1, _ data: [UInt8],
    byteCount: Int? = nil, life: UInt16 = 60
  ) -> [UInt8] {
    owner + word(type) + word(kind) + [0, 0] + word(life)
      + word(UInt16(byteCount ?? data.count)) + data
  }
}
