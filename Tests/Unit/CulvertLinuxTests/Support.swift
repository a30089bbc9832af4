import Culvert
import Glibc
import Testing

@testable import CulvertLinux

/// Tests that affect the whole process (umask, descriptors, namespaces) run one after the other.
@Suite(.serialized) struct LinuxTests {}

/// Functions that the Glibc module does not export, found by name. On x86-64 and ARM, the calling
/// convention for fixed arguments is the same in variadic and other functions.
enum Hidden {
  typealias Unshare = @convention(c) (Int32) -> Int32
  typealias Setns = @convention(c) (Int32, Int32) -> Int32
  typealias Fork = @convention(c) () -> Int32
  typealias Prctl = @convention(c) (Int32, UInt, UInt, UInt, UInt) -> Int32

  static func find<T>(_ name: String, as type: T.Type) -> T {
    unsafeBitCast(dlsym(nil, name)!, to: type)
  }
}

let cloneNewNet: Int32 = 0x4000_0000

/// True if this machine can make a network namespace with a TUN.
let canMakeNamespaces: Bool = {
  guard geteuid() == 0, access("/dev/net/tun", R_OK | W_OK) == 0 else { return false }
  guard access("/usr/sbin/ip", X_OK) == 0 || access("/sbin/ip", X_OK) == 0 else { return false }
  return (try? inFreshNamespace { true }) ?? false
}()

/// Runs `body` in a new network namespace with `lo` up. A namespace belongs to a thread, and a
/// synchronous body never leaves its thread.
func inFreshNamespace<R>(_ body: () throws -> R) throws -> R {
  let home = open("/proc/thread-self/ns/net", O_RDONLY | O_CLOEXEC)
  guard home >= 0, Hidden.find("unshare", as: Hidden.Unshare.self)(cloneNewNet) == 0 else {
    close(home)
    throw SystemError(code: errno)
  }
  defer {
    precondition(Hidden.find("setns", as: Hidden.Setns.self)(home, cloneNewNet) == 0)
    close(home)
  }
  let control = FileDescriptor(taking: socket(AF_INET, Int32(SOCK_DGRAM.rawValue), 0))
  precondition(control.isOpen)
  precondition(shell("ip link set lo up") == 0)
  return try body()
}

/// The exit status of a shell command, run in this thread's namespace.
@discardableResult
func shell(_ command: String) -> Int32 {
  let status = system("{ \(command) ; } >/dev/null 2>&1")
  return status & 0x7f == 0 ? status >> 8 & 0xff : -1
}

/// Retries until `condition` holds or ten seconds have passed, because the machine may be busy.
func eventually(_ condition: () -> Bool) -> Bool {
  for _ in 0..<10_000 {
    if condition() { return true }
    usleep(1000)
  }
  return condition()
}

/// Adds an IPv6 address to an interface that is up, and waits until the kernel uses it: a work
/// queue adds its local route, which takes a while on a busy machine.
func addIPv6Address(_ address: String, length: Int, to interface: String) -> Bool {
  guard shell("ip addr add \(address)/\(length) dev \(interface) nodad") == 0 else { return false }
  return eventually {
    shell("ip -6 route show table local \(address) | grep -q \(interface)") == 0
  }
}

/// A fresh directory under /tmp, removed afterwards.
func withTemporaryDirectory<R>(_ body: (String) throws -> R) rethrows -> R {
  var template = Array("/tmp/culvert-test-XXXXXX".utf8CString)
  let path = template.withUnsafeMutableBufferPointer { String(cString: mkdtemp($0.baseAddress!)!) }
  defer { shell("rm -rf \(path)") }
  return try body(path)
}

/// Runs `body` in a forked copy of this process, and returns its exit status. `body` should hardly
/// allocate: locks that other threads hold are never released in the copy.
func statusOfFork(_ body: () -> Never) -> Int32 {
  let child = Hidden.find("fork", as: Hidden.Fork.self)()
  if child == 0 { body() }
  var status: Int32 = 0
  while waitpid(child, &status, 0) < 0 && errno == EINTR {}
  return status & 0x7f == 0 ? status >> 8 & 0xff : 1000 + (status & 0x7f)
}

func bytes(_ text: String) -> [UInt8] { Array(text.utf8) }

/// The text that `body` builds with a line builder.
func text(_ body: (inout Line) -> Void) -> String {
  withUnsafeTemporaryAllocation(byteCount: 256, alignment: 1) { buffer in
    var line = Line(into: buffer)
    body(&line)
    return String(decoding: line.bytes, as: UTF8.self)
  }
}

let loopback4 = IPAddress(ipv4: 0x7f00_0001)
let loopback6 = IPAddress(ipv6High: 0, low: 1)
