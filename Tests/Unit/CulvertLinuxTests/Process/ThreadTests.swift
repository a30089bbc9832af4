import CLinux
import Culvert
import Glibc
import Testing

@testable import CulvertLinux

extension LinuxTests {
  /// Synchronisation of the workers. Also run under the thread sanitizer.
  @Suite struct ThreadTests {
    /// Shared between threads; each field is guarded as its test requires.
    struct Shared {
      let lock: Lock
      let turnstile: Turnstile
      /// Under the lock.
      var nextTicket: UInt64 = 0
      var generator: UInt64 = 1
      /// Under the lock or the turnstile.
      var count = 0
      let order: UnsafeMutablePointer<UInt64>
      let wanted: Int
      /// Addresses of locals of the threads, under the lock.
      var places: (UInt, UInt, UInt, UInt) = (0, 0, 0, 0)
    }

    static let stackByteCount = 128 * 1024
    static let threadCount = 4

    /// Runs `body` in four threads on stacks from the arena. Returns their results.
    func run(
      wanted: Int, _ body: @convention(c) (UnsafeMutableRawPointer?) -> UnsafeMutableRawPointer?,
      check: (UnsafeMutablePointer<Shared>, UnsafeMutableRawBufferPointer) -> Void
    ) throws {
      let region = try MemoryRegion(byteCount: 1 << 20)
      var arena = Arena(region: region.bytes)
      let stacks = arena.carveBytes(Self.threadCount * Self.stackByteCount, owner: "stacks")
      let lock = Lock(carvingFrom: &arena)
      let turnstile = Turnstile(carvingFrom: &arena)
      let order = arena.carve(UInt64.self, count: wanted, owner: "order").baseAddress!
      lock.prepare()
      turnstile.prepare()
      let shared = UnsafeMutablePointer<Shared>.allocate(capacity: 1)
      defer { shared.deallocate() }
      shared.initialize(
        to: Shared(lock: lock, turnstile: turnstile, order: order, wanted: wanted))
      var threads: [UInt64] = []
      for index in 0..<Self.threadCount {
        var thread: UInt64 = 0
        let result = clinux_thread_start(
          stacks.baseAddress! + index * Self.stackByteCount, Self.stackByteCount, body, shared,
          &thread)
        #expect(result == 0)
        if result == 0 { threads.append(thread) }
      }
      for thread in threads { clinux_thread_join(thread) }
      check(shared, stacks)
    }

    /// Sometimes long enough that other threads have to sleep.
    static func delay(_ random: UInt64) {
      if random % 64 == 0 { usleep(UInt32(random >> 8) % 100) } else { sched_yield() }
    }

    @Test func theTurnstileKeepsTheOrderOfTickets() throws {
      try run(wanted: 10_000) { context in
        let shared = context!.assumingMemoryBound(to: Shared.self)
        while true {
          shared.pointee.lock.acquire()
          let ticket = shared.pointee.nextTicket
          shared.pointee.nextTicket += 1
          shared.pointee.generator =
            shared.pointee.generator &* 0x5851_f42d_4c95_7f2d &+ 0x1405_7b7e_f767_814f
          let random = shared.pointee.generator >> 33
          shared.pointee.lock.release()
          guard ticket < UInt64(shared.pointee.wanted) else { return nil }
          ThreadTests.delay(random)
          shared.pointee.turnstile.ticket(ticket).waitForTurn()
          // Only one thread is here: no lock, no atomic.
          let place = shared.pointee.count
          if random % 16 == 0 { sched_yield() }
          shared.pointee.order[place] = ticket
          shared.pointee.count = place + 1
          shared.pointee.turnstile.ticket(ticket).leave()
        }
      } check: { shared, _ in
        #expect(shared.pointee.count == 10_000)
        let order = (0..<10_000).map { shared.pointee.order[$0] }
        #expect(order == (0..<10_000).map { UInt64($0) })
      }
    }

    @Test func theLockExcludes() throws {
      try run(wanted: 20_000) { context in
        let shared = context!.assumingMemoryBound(to: Shared.self)
        for number in 0..<shared.pointee.wanted {
          shared.pointee.lock.acquire()
          let count = shared.pointee.count
          if number % 512 == 0 { sched_yield() }
          shared.pointee.count = count + 1
          shared.pointee.lock.release()
        }
        return nil
      } check: { shared, _ in
        #expect(shared.pointee.count == 4 * 20_000)
      }
    }

    @Test func threadsRunOnTheStacksGivenToThem() throws {
      try run(wanted: 1) { context in
        let shared = context!.assumingMemoryBound(to: Shared.self)
        var local = 0
        let place = withUnsafeMutablePointer(to: &local) { UInt(bitPattern: $0) }
        shared.pointee.lock.acquire()
        switch shared.pointee.count {
        case 0: shared.pointee.places.0 = place
        case 1: shared.pointee.places.1 = place
        case 2: shared.pointee.places.2 = place
        default: shared.pointee.places.3 = place
        }
        shared.pointee.count += 1
        shared.pointee.lock.release()
        return nil
      } check: { shared, stacks in
        let (a, b, c, d) = shared.pointee.places
        let start = UInt(bitPattern: stacks.baseAddress!)
        let indices = [a, b, c, d].map { place -> Int in
          place < start ? -1 : Int((place - start) / UInt(Self.stackByteCount))
        }
        #expect(Set(indices) == [0, 1, 2, 3])
      }
    }

    @Test func aStackThatIsTooSmallIsAnError() {
      var thread: UInt64 = 0
      let bytes = UnsafeMutableRawPointer.allocate(byteCount: 1024, alignment: 4096)
      defer { bytes.deallocate() }
      #expect(clinux_thread_start(bytes, 1024, { _ in nil }, nil, &thread) == -EINVAL)
      #expect(clinux_cpu_count() >= 1)
    }
  }
}
