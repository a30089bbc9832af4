@testable import Culvert

/// A datagram that reaches a tunnel under test.
struct Arrival {
  var bytes: [UInt8]
  var path: Path
  var trafficClass: UInt8 = 0
  var isTruncated = false

  init(
    _ bytes: [UInt8], from endpoint: Endpoint, trafficClass: UInt8 = 0, isTruncated: Bool = false
  ) {
    self.bytes = bytes
    path = Path(to: endpoint)
    self.trafficClass = trafficClass
    self.isTruncated = isTruncated
  }
}
