import Testing

@testable import Culvert

/// The heap against a list of deadlines that is searched each time.
@Suite struct ScheduleTests {
  private static let peers = 9

  @Test(arguments: Array(1...12) as [UInt64])
  func theTopIsTheLeastOfAll(seed: UInt64) {
    var generator = SeededGenerator(seed: seed)
    let memory = TestArena(byteCount: 1 << 13)
    var schedule = Schedule(carvingFrom: &memory.arena, peers: ScheduleTests.peers)
    var model: [UInt32: UInt64] = [:]
    for _ in 0..<3000 {
      let peer = UInt32(generator.next() % UInt64(ScheduleTests.peers))
      // Few values, so that equal ones are common.
      let time = generator.next() % 40
      switch generator.next() % 6 {
      case 0, 1, 2:
        schedule.lower(peer, to: Deadline(nanoseconds: time))
        model[peer] = min(model[peer] ?? .max, time)
      case 3:
        schedule.lower(peer, to: .never)
      case 4:
        let isOut = generator.next() % 3 == 0
        if let top = schedule.top?.peer { model[top] = isOut ? nil : time }
        schedule.replaceTop(isOut ? .never : Deadline(nanoseconds: time))
      default:
        schedule.remove(peer)
        model[peer] = nil
      }
      expect(schedule.count == model.count)
      if let top = schedule.top {
        #expect(top.deadline.nanoseconds == model.values.min())
        #expect(model[top.peer] == top.deadline.nanoseconds)
      } else {
        #expect(model.isEmpty)
      }
    }
    drain(&schedule, model)
    withExtendedLifetime(memory) {}
  }

  /// What is left comes out in order, each peer once.
  private func drain(_ schedule: inout Schedule, _ model: [UInt32: UInt64]) {
    var times: [UInt64] = []
    var peers: Set<UInt32> = []
    while let top = schedule.top {
      times.append(top.deadline.nanoseconds)
      peers.insert(top.peer)
      schedule.replaceTop(.never)
    }
    #expect(times == model.values.sorted())
    #expect(peers == Set(model.keys))
    schedule.replaceTop(.never)
    expect(schedule.count == 0)
  }
}
