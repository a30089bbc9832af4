import Culvert
import Glibc
import Testing

@testable import CulvertLinux

extension LinuxTests {
  @Suite struct UAPIListenerTests {
    let name = InterfaceName("cvt0")!

    func connect(to path: String) -> Int32 { UAPIClient.connect(to: path) }

    func mode(of path: String) -> UInt32 {
      var status = stat()
      return stat(path, &status) == 0 ? status.st_mode & 0o7777 : .max
    }

    /// Whether there is something to read within a second.
    func isReadable(_ raw: Int32) -> Bool {
      var request = pollfd(fd: raw, events: Int16(POLLIN), revents: 0)
      return poll(&request, 1, 1000) == 1
    }

    @Test func theSocketIsPrivateAndServesConnections() throws {
      try withTemporaryDirectory { parent in
        let directory = parent + "/wireguard"
        try directory.withCString { path in
          let before = umask(0)
          defer { umask(before) }
          let listener = try UAPIListener.open(name, in: path)
          #expect(umask(0) == 0)
          #expect(mode(of: directory) == 0o700)
          #expect(mode(of: directory + "/cvt0.sock") == 0o600)
          if listener.accept() != nil { Issue.record("nobody connected") }
          let client = FileDescriptor(taking: connect(to: directory + "/cvt0.sock"))
          #expect(client.isOpen == true)
          guard let server = listener.accept() else {
            Issue.record("no connection")
            return
          }
          var buffer = [UInt8](repeating: 0, count: 16)
          #expect(buffer.withUnsafeMutableBytes { server.read(into: $0) } == -Int(EAGAIN))
          #expect(bytes("get=1\n\n").withUnsafeBytes { client.write($0) } == 7)
          #expect(buffer.withUnsafeMutableBytes { server.read(into: $0) } == 7)
        }
      }
    }

    @Test func aLiveSocketIsRefusedAndAStaleOneReplaced() throws {
      try withTemporaryDirectory { directory in
        try directory.withCString { path in
          do {
            let first = try UAPIListener.open(name, in: path)
            #expect(throws: SystemError.EADDRINUSE) { _ = try UAPIListener.open(name, in: path) }
            #expect(first.isPresent() == true)
          }
          // As after the death of a process: the socket is closed, but its file still exists.
          #expect(connect(to: directory + "/cvt0.sock") == -ECONNREFUSED)
          let second = try UAPIListener.open(name, in: path)
          let client = FileDescriptor(taking: connect(to: directory + "/cvt0.sock"))
          #expect(client.isOpen == true)
          #expect(second.isPresent() == true)
        }
      }
    }

    @Test func R25_theDeletedSocketFileIsNoticed() throws {
      try withTemporaryDirectory { directory in
        try directory.withCString { path in
          let listener = try UAPIListener.open(name, in: path)
          #expect(listener.isPresent() == true)
          #expect(unlink(directory + "/cvt0.sock") == 0)
          #expect(isReadable(listener.rawWatch))
          #expect(listener.isPresent() == false)
        }
      }
    }

    @Test func removalSparesAnothersFile() throws {
      try withTemporaryDirectory { directory in
        try directory.withCString { path in
          let socket = directory + "/cvt0.sock"
          let first = try UAPIListener.open(name, in: path)
          #expect(unlink(socket) == 0)
          let second = try UAPIListener.open(name, in: path)
          #expect(first.isPresent() == false)
          #expect(second.isPresent() == true)
          first.remove()
          #expect(access(socket, F_OK) == 0)
          second.remove()
          #expect(access(socket, F_OK) != 0)
        }
      }
    }

    @Test func aListeningSocketIsAdopted() throws {
      try withTemporaryDirectory { directory in
        try directory.withCString { path in
          let first = try UAPIListener.open(name, in: path)
          let adopted = try UAPIListener.adopt(dup(first.raw), name, in: path)
          let client = FileDescriptor(taking: connect(to: directory + "/cvt0.sock"))
          #expect(client.isOpen == true)
          if adopted.accept() == nil { Issue.record("no connection") }
          #expect(adopted.isPresent() == true)
          #expect(unlink(directory + "/cvt0.sock") == 0)
          #expect(adopted.isPresent() == false)
          let null = open("/dev/null", O_RDWR)
          defer { close(null) }
          #expect(throws: SystemError.self) { _ = try UAPIListener.adopt(null, name, in: path) }
        }
      }
    }

    @Test func aPathThatDoesNotFitIsRefused() {
      let long = "/tmp/" + String(repeating: "d", count: 120)
      _ = long.withCString { path in
        #expect(throws: SystemError.ENAMETOOLONG) { _ = try UAPIListener.open(name, in: path) }
      }
    }

    @Test func R27_connectionsLeakNoDescriptor() throws {
      try withTemporaryDirectory { directory in
        try directory.withCString { path in
          let listener = try UAPIListener.open(name, in: path)
          let probe = dup(0)
          close(probe)
          for _ in 0..<1000 {
            let client = FileDescriptor(taking: connect(to: directory + "/cvt0.sock"))
            let server = listener.accept()
            if !client.isOpen || server == nil { Issue.record("no connection") }
          }
          let after = dup(0)
          close(after)
          #expect(after == probe)
        }
      }
    }
  }
}
