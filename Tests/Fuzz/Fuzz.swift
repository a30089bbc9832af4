// All targets in one program, for the core takes long to build: the name that it has says which.
// They and the core are one module, so that internals need no @testable.

/// Takes an input and checks what becomes of it. It has failed when the process ends.
typealias FuzzTarget = (UnsafePointer<UInt8>?, Int) -> CInt

nonisolated(unsafe) private var target: FuzzTarget = { _, _ in fatalError("no target was chosen") }

/// libFuzzer's first call, with the addresses of argc and argv.
@_cdecl("LLVMFuzzerInitialize")
public func chooseTarget(
  _ count: UnsafePointer<CInt>,
  _ arguments: UnsafePointer<UnsafePointer<UnsafePointer<CChar>>>
) -> CInt {
  let name = String(cString: arguments.pointee[0]).split(separator: "/").last.map(String.init)
  switch name {
  case "channel": target = fuzzChannel
  case "config": target = fuzzConfig
  case "inner": target = fuzzInnerPackets
  case "join": target = fuzzJoining
  case "message": target = fuzzMessages
  case "reassembler": target = fuzzReassembler
  case "uapi": target = fuzzUAPI
  case "virtio": target = fuzzVirtio
  default: fatalError("no target is called \(name ?? "nothing")")
  }
  return 0
}

@_cdecl("LLVMFuzzerTestOneInput")
public func runTarget(_ bytes: UnsafePointer<UInt8>?, _ count: Int) -> CInt { target(bytes, count) }
