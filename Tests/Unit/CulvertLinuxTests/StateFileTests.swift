import Culvert
import Glibc
import Testing

@testable import CulvertLinux

extension LinuxTests {
  @Suite struct StateFileTests {
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
