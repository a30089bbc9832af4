// All targets are in one program, since the core takes long to compile; the name under which the
// program is run selects the target. Targets and core are one module, so they need no @testable.

/// Runs the core on an input and checks the result. A failure ends the process.
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

// MARK: The message door

// Arbitrary datagrams arrive, in any order and at any time, at a tunnel with a live session and
// four more peers. The input is a sequence of choices that `DoorWorld` follows
// (Tests/Unit/CulvertTests/Door). Build and run: Tests/Fuzz/run message.

nonisolated(unsafe) private let world: DoorWorld = {
  precondition(Sodium.start())
  return DoorWorld()
}()

func fuzzMessages(_ bytes: UnsafePointer<UInt8>?, _ count: Int) -> CInt {
  var choices = Choices(bytes: UnsafeRawBufferPointer(start: bytes, count: count))
  world.restore()
  while !choices.isExhausted, world.step(&choices) {}
  world.checkEmptied()
  if let failure = world.failure { fatalError("\(failure)") }
  return 0
}

// MARK: Checks

/// `precondition` whose message is printed in release builds too.
func require(
  _ isTrue: Bool, _ promise: StaticString = "", file: StaticString = #fileID, line: UInt = #line
) {
  if !isTrue { fatalError("\(file):\(line): \(promise)") }
}
