@testable import Culvert

/// What a simulation's seed decides once.
struct SimulationOptions {
  var nodeCount: Int
  var limits: Limits
  /// Chances out of 1000, for each datagram.
  var loss: UInt64
  var duplication: UInt64
  var replay: UInt64
  var corruption: UInt64
  var truncation: UInt64
  /// Of each datagram, at random up to this.
  var maximumDelay: UInt64
  /// Chances out of 1000, for each second.
  var partition: UInt64
  var clockJump: UInt64
  var roaming: UInt64
  var flap: UInt64
  var removal: UInt64
  /// Mean time between two packets of all nodes.
  var packetInterval: UInt64
  /// Of the troubled time, before the network heals.
  var duration: UInt64
  /// Chance out of 1000 that a packet is one to be cut.
  var segmentation: UInt64
  /// Datagrams arrive glued together, and packets are written joined.
  var gluesDatagrams: Bool
  var joinsPackets: Bool
  /// Of the cipher; see `TransportCipher`.
  var stride: Int

  init(seed: UInt64) {
    var generator = SeededGenerator(seed: seed ^ 0x6f70_7469_6f6e_73)
    let upTo = { (bound: UInt64) in generator.next() % (bound + 1) }
    nodeCount = 2 + Int(upTo(2))
    limits = upTo(1) == 0 ? .shrunken() : .roomy
    if upTo(2) == 0 { limits.stagingSlots = 3 }
    loss = upTo(200)
    duplication = upTo(100)
    replay = upTo(50)
    corruption = upTo(30)
    truncation = upTo(10)
    maximumDelay = [1, 50, 800, 4000][Int(upTo(3))] * nanosecondsPerMillisecond
    partition = upTo(20)
    clockJump = upTo(20)
    roaming = upTo(20)
    flap = upTo(6)
    removal = upTo(6)
    packetInterval = [300, 700, 2000][Int(upTo(2))] * nanosecondsPerMillisecond
    duration = 400 * nanosecondsPerSecond
    segmentation = upTo(500)
    gluesDatagrams = upTo(2) != 0
    joinsPackets = upTo(2) != 0
    stride = [0, 64, 256, 512][Int(upTo(3))]
  }
}
