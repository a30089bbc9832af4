import Testing

@testable import Culvert

@Suite struct ReplayWindowTests {
  /// The naive model: a set of every counter ever accepted.
  struct Model {
    var seen: Set<UInt64> = []
    var greatest: UInt64 = 0

    mutating func accept(_ counter: UInt64) -> Bool {
      guard counter < WireGuard.rejectAfterMessages, !seen.contains(counter) else { return false }
      guard counter > greatest || greatest - counter < 8192 else { return false }
      seen.insert(counter)
      greatest = max(greatest, counter)
      return true
    }
  }

  /// A window over its own words, with a guard word on either side.
  final class Window {
    private let words: UnsafeMutablePointer<UInt64>
    private var window: ReplayWindow

    init() {
      words = .allocate(capacity: ReplayWindow.wordCount + 2)
      words.initialize(repeating: 0, count: ReplayWindow.wordCount + 2)
      words[0] = 0xfeed
      words[ReplayWindow.wordCount + 1] = 0xfeed
      window = ReplayWindow(bits: words + 1)
    }

    deinit {
      #expect(words[0] == 0xfeed && words[ReplayWindow.wordCount + 1] == 0xfeed)
      words.deallocate()
    }

    func accept(_ counter: UInt64) -> Bool { window.accept(counter) }
    func wouldAccept(_ counter: UInt64) -> Bool { window.wouldAccept(counter) }
    func reset() { window.reset() }
  }

  @Test func itsWordsAreThePolicys() {
    #expect(ReplayWindow.wordCount * 64 == Policy.replayWindowPacketCount)
    #expect(ReplayWindow.wordCount.nonzeroBitCount == 1)
  }

  @Test(arguments: 1...12 as ClosedRange<UInt64>)
  func agreesWithTheModel(seed: UInt64) {
    var random = Entropy.seeded(seed)
    let window = Window()
    var model = Model()
    // Half of the runs end at the largest counters.
    var base: UInt64 = 0
    if seed % 2 == 0 {
      base = WireGuard.rejectAfterMessages - 60_000
      let expected = model.accept(base)
      #expect(window.accept(base) == expected)
    }
    for step in 0..<30_000 {
      let counter: UInt64
      switch random.below(10) {
      case 0...4: counter = model.greatest + 1 + random.below(3)
      case 5: counter = model.greatest + random.below(200)
      case 6 where step % 50 == 0:
        counter = model.greatest + min(8000 + random.below(400), .max - model.greatest)
      case 7: counter = model.greatest - min(model.greatest, 8150 + random.below(100))
      default: counter = model.greatest - min(model.greatest, random.below(9000))
      }
      let would = window.wouldAccept(counter)
      let expected = model.accept(counter)
      let does = window.accept(counter)
      guard would == expected, does == expected else {
        Issue.record("seed \(seed), step \(step), counter \(counter): not \(expected)")
        return
      }
    }
    if seed % 2 == 0 { #expect(model.greatest > WireGuard.rejectAfterMessages - 9000) }
  }

  @Test func everyCounterOnceFromTheFirst() {
    let window = Window()
    #expect(window.accept(0))
    #expect(!window.accept(0))
    for counter: UInt64 in 1..<20_000 {
      #expect(window.accept(counter))
      #expect(!window.accept(counter))
    }
  }

  @Test func edgesOfTheWindow() {
    let window = Window()
    #expect(window.accept(8192))
    #expect(window.accept(1))
    #expect(!window.accept(0))
    #expect(window.accept(8193))
    #expect(!window.accept(1))
    #expect(window.accept(2))
    // A jump over the whole window, to the same bit of the same word, clears it.
    #expect(window.accept(8193 + 10 * 8192))
    #expect(!window.accept(8193))
    #expect(window.accept(8194 + 9 * 8192))
    // A jump of one less than the window keeps the newest counter.
    #expect(window.accept(8193 + 11 * 8192 - 1))
    #expect(!window.accept(8193 + 10 * 8192))
    #expect(window.accept(8193 + 10 * 8192 + 1))
  }

  @Test func R3_theCounterEndsAtRejectAfterMessages() {
    let window = Window()
    #expect(!window.accept(WireGuard.rejectAfterMessages))
    #expect(!window.accept(.max))
    #expect(window.accept(WireGuard.rejectAfterMessages - 1))
    #expect(!window.accept(WireGuard.rejectAfterMessages - 1))
    #expect(window.accept(WireGuard.rejectAfterMessages - 8192))
    #expect(!window.accept(WireGuard.rejectAfterMessages - 8193))
    #expect(!window.wouldAccept(.max))
  }

  @Test func resetForgets() {
    let window = Window()
    for counter: UInt64 in [0, 5, 70, 4000] { #expect(window.accept(counter)) }
    window.reset()
    for counter: UInt64 in [0, 5, 70, 4000] { #expect(window.accept(counter)) }
  }
}
