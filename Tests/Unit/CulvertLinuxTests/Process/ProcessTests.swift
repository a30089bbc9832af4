import CLinux
import Culvert
import Glibc
import Testing

@testable import CulvertLinux

extension LinuxTests {
  @Suite struct ProcessTests {
    @Test func theCallersCommandEndsWithTheReport() {
      let success = statusOfFork {
        guard var daemon = try? Daemon.fork() else { _exit(99) }
        daemon.reportSuccess(keepsOutput: false)
        // The daemon is in service, so its later exit status does not matter.
        _exit(5)
      }
      #expect(success == 0)
      let failure = statusOfFork {
        guard var daemon = try? Daemon.fork() else { _exit(99) }
        daemon.reportFailure(status: 3)
        _exit(4)
      }
      #expect(failure == 3)
    }

    @Test func aChildThatDiesWithoutAWordIsAFailure() {
      let ended = statusOfFork {
        guard let daemon = try? Daemon.fork(), daemon.isBackground else { _exit(99) }
        _exit(7)
      }
      #expect(ended == 7)
      let killed = statusOfFork {
        guard let daemon = try? Daemon.fork(), daemon.isBackground else { _exit(99) }
        kill(getpid(), SIGKILL)
        _exit(98)
      }
      #expect(killed == 128 + SIGKILL)
    }

    @Test func theDaemonLetsGoOfTheCallersOutput() throws {
      var ends: [Int32] = [0, 0]
      #expect(pipe(&ends) == 0)
      let status = statusOfFork {
        dup2(ends[1], 1)
        dup2(ends[1], 2)
        close(ends[1])
        close(ends[0])
        guard var daemon = try? Daemon.fork() else { _exit(99) }
        Output.writeLine(to: Output.standardError) { $0.append("started") }
        daemon.reportSuccess(keepsOutput: false)
        Output.writeLine(to: Output.standardError) { $0.append("unheard") }
        // The process stays alive, and yet the reader below sees the end of file.
        sleep(2)
        _exit(0)
      }
      #expect(status == 0)
      close(ends[1])
      let source = FileDescriptor(taking: ends[0])
      var buffer = [UInt8](repeating: 0, count: 64)
      #expect(buffer.withUnsafeMutableBytes { source.read(into: $0) } == 8)
      #expect(buffer.prefix(8).elementsEqual(bytes("started\n")))
      #expect(buffer.withUnsafeMutableBytes { source.read(into: $0) } == 0)
    }

    @Test func closedStandardDescriptorsAreOpened() {
      let status = statusOfFork {
        close(0)
        close(1)
        close(2)
        guard (try? Hardening.prepare()) != nil else { _exit(1) }
        let next = open("/dev/null", O_RDONLY)
        _exit(isOpen(0) && isOpen(1) && isOpen(2) && next > 2 ? 0 : 2)
      }
      #expect(status == 0)
    }

    @Test func R9_coreDumpsAreForbidden() {
      let status = statusOfFork {
        guard Hardening.forbidCoreDumps() == nil else { _exit(1) }
        // PR_GET_DUMPABLE
        _exit(Hidden.find("prctl", as: Hidden.Prctl.self)(3, 0, 0, 0, 0))
      }
      #expect(status == 0)
    }

    @Test func R9_theRegionIsZeroedAndItsSecretsAreLocked() throws {
      let region = try MemoryRegion(byteCount: 1 << 20)
      #expect(region.bytes.count == 1 << 20)
      #expect(UInt(bitPattern: region.bytes.baseAddress) % 4096 == 0)
      #expect(region.bytes.allSatisfy { $0 == 0 })
      let secrets = UnsafeMutableRawBufferPointer(rebasing: region.bytes[..<8192])
      #expect(MemoryRegion.protect(secrets) == nil)
      // "lo" and "dd" in the flags of the mapping: locked, and not in dumps.
      let start = String(UInt(bitPattern: secrets.baseAddress), radix: 16)
      let isMarked = "/proc/\(getpid())/smaps"
      let pattern = "/^\(start)-/{f=1} f&&/^VmFlags/{exit !(/ lo/ && / dd/)}"
      #expect(shell("awk '\(pattern)' \(isMarked)") == 0)
      #expect(throws: SystemError.ENOMEM) { _ = try MemoryRegion(byteCount: 1 << 46) }
    }

    @Test func theEnvironmentIsRead() {
      setenv("CULVERT_TEST_NUMBER", "17", 1)
      setenv("CULVERT_TEST_TEXT", "17x", 1)
      setenv("CULVERT_TEST_EMPTY", "", 1)
      #expect(Environment.integer("CULVERT_TEST_NUMBER") == 17)
      #expect(Environment.integer("CULVERT_TEST_TEXT") == nil)
      #expect(Environment.integer("CULVERT_TEST_EMPTY") == nil)
      #expect(Environment.integer("CULVERT_TEST_MISSING") == nil)
      #expect(Environment.bytes("CULVERT_TEST_EMPTY")?.count == 0)
      #expect(Environment.isSet("CULVERT_TEST_TEXT", to: "17x"))
      #expect(!Environment.isSet("CULVERT_TEST_TEXT", to: "17"))
    }
  }
}

extension LinuxTests {
  /// The files that the helper process reads and writes.
  @Suite struct StateFileTests {
    struct StateFile {
      let name: InterfaceName
      let directory: UnsafePointer<CChar>

      init(_ name: InterfaceName, in directory: UnsafePointer<CChar>) {
        self.name = name
        self.directory = directory
      }

      func read(into buffer: UnsafeMutableRawBufferPointer) -> Int {
        name.withCString { clinux_state_read(directory, $0, buffer.baseAddress, buffer.count) }
      }

      func write(_ bytes: UnsafeRawBufferPointer) -> Int32 {
        name.withCString { clinux_state_write(directory, $0, bytes.baseAddress, bytes.count) }
      }
    }

    let name = InterfaceName("cvt0")!

    func read(_ file: StateFile, capacity: Int = 64) -> (count: Int, bytes: [UInt8]) {
      var buffer = [UInt8](repeating: 0, count: capacity)
      let count = buffer.withUnsafeMutableBytes { file.read(into: $0) }
      return (count, Array(buffer.prefix(max(0, count))))
    }

    @Test func R28_theStampSurvives() throws {
      withTemporaryDirectory { parent in
        (parent + "/culvert").withCString { path in
          let file = StateFile(name, in: path)
          #expect(read(file).count == -Int(ENOENT))
          #expect(bytes("first stamp").withUnsafeBytes { file.write($0) } == 0)
          #expect(read(file).bytes == bytes("first stamp"))
          #expect(bytes("2nd").withUnsafeBytes { file.write($0) } == 0)
          #expect(read(file).bytes == bytes("2nd"))
          #expect(read(file, capacity: 3).bytes == bytes("2nd"))
          #expect(read(file, capacity: 2).count == -Int(EMSGSIZE))
          var status = stat()
          #expect(stat(parent + "/culvert/cvt0", &status) == 0)
          #expect(status.st_mode & 0o777 == 0o600)
          #expect(access(parent + "/culvert/cvt0.new", F_OK) != 0)
        }
      }
    }

    @Test func whatACrashLeftBehindIsOverwritten() {
      withTemporaryDirectory { directory in
        directory.withCString { path in
          let file = StateFile(name, in: path)
          #expect(bytes("old").withUnsafeBytes { file.write($0) } == 0)
          #expect(shell("printf 'half of a longer one' > \(directory)/cvt0.new") == 0)
          #expect(read(file).bytes == bytes("old"))
          #expect(bytes("new").withUnsafeBytes { file.write($0) } == 0)
          #expect(read(file).bytes == bytes("new"))
        }
      }
    }

    @Test func aMissingParentIsAnError() {
      "/tmp/culvert-test-none/below".withCString { path in
        let file = StateFile(name, in: path)
        #expect(bytes("x").withUnsafeBytes { file.write($0) } == -ENOENT)
        #expect(read(file).count == -Int(ENOENT))
      }
    }
  }
}
