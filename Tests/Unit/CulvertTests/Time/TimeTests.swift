import Testing

@testable import Culvert

@Suite struct TimeTests {
  @Test func wallTimesAreOrderedBySecondsFirst() {
    let times = [(0, 0), (0, 1), (0, 999_999_999), (1, 0), (1, 5), (7, 1)].map {
      WallTime(seconds: $0.0, nanoseconds: $0.1)
    }
    for (left, earlier) in times.enumerated() {
      for (right, later) in times.enumerated() {
        #expect((earlier < later) == (left < right))
      }
    }
  }
}
