// The message door: whatever arrives from the network, in whatever order, at whatever time, at a
// tunnel with a live session and four more peers. The input is a sequence of choices that
// `DoorWorld` (Tests/Unit/CulvertTests/Door) follows. Build and run: Tests/Fuzz/run message.

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
