import Testing

@testable import Culvert

@Suite struct ECNTests {
  /// RFC 6040 figure 4, row by row: inner Not-ECT, ECT(0), ECT(1), CE; columns the outer in the
  /// same order. 9 stands for "drop".
  @Test func decapsulationTable() {
    let order: [UInt8] = [0b00, 0b10, 0b01, 0b11]
    let table: [[UInt8]] = [
      [0b00, 0b00, 0b00, 9],
      [0b10, 0b10, 0b01, 0b11],
      [0b01, 0b01, 0b01, 0b11],
      [0b11, 0b11, 0b11, 0b11],
    ]
    for (row, inner) in order.enumerated() {
      for (column, outer) in order.enumerated() {
        // The DSCP above the codepoint plays no role.
        let combined = ECN.combine(inner: inner | 0xb8, outer: outer | 0x40)
        #expect((combined ?? 9) == table[row][column], "inner \(inner) outer \(outer)")
      }
    }
  }

  @Test func encapsulationCopiesTheCodepointOnly() {
    for trafficClass: UInt8 in 0...255 {
      #expect(ECN.encapsulate(trafficClass) == trafficClass & 3)
    }
  }
}
