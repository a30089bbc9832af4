/// Adds fragments to their datagrams, and returns completed datagrams to the caller.
extension Reassembler {
  @inline(__always)
  mutating func hold(_ fragment: Fragment, at now: Instant) -> Outcome {
    observe(now)
    let bucket = bucket(of: fragment.key)
    var slot = buckets.next(bucket)
    while slot < Reassembler.slots, !(datagrams[slot].key == fragment.key) {
      slot = buckets.next(slot)
    }
    // Expired but not yet removed: the identification may belong to a new datagram by now.
    if slot < Reassembler.slots, datagrams[slot].isOver(at: now) {
      forget(slot, .expired)
      slot = Reassembler.slots
    }
    if slot >= Reassembler.slots {
      guard let claimed = claim(for: fragment.key, bucket: bucket, at: now) else {
        return drop(.noSlot)
      }
      slot = claimed
    }
    return add(fragment, to: slot)
  }

  @inline(__always)
  private func bucket(of key: FragmentKey) -> Int {
    let hash = key.hashed(by: hash) &>> (32 &- Reassembler.bucketBits)
    return Reassembler.slots &+ Int(truncatingIfNeeded: hash)
  }

  @inline(__always)
  private mutating func add(_ fragment: Fragment, to slot: Int) -> Outcome {
    guard !datagrams[slot].isPoisoned else { return drop(.poisoned) }
    let isEndKnown = datagrams[slot].totalByteCount != 0
    if let verdict = datagrams[slot].refusal(of: fragment) { return poison(slot, verdict) }
    datagrams[slot].extentByteCount =
      max(datagrams[slot].extentByteCount, fragment.endByteOffset)
    let relation = coverage(of: slot).insert(
      byteOffset: fragment.byteOffset, byteCount: fragment.payloadByteCount)
    switch relation {
    case .new: break
    case .overlap: return poison(slot, .overlap)
    case .same:
      guard isEndKnown || !fragment.isLast, fragment.hasData(of: payload(of: slot)) else {
        return poison(slot, .overlap)
      }
      return drop(.duplicate)
    }
    datagrams[slot].marks |= 1 &<< fragment.mark
    guard datagrams[slot].marks & 1 == 0 || datagrams[slot].marks == 1 else {
      return poison(slot, .brokenCongestionMark)
    }
    guard datagrams[slot].fragmentCount < maximumFragmentCount else {
      return poison(slot, .tooManyFragments)
    }
    datagrams[slot].fragmentCount &+= 1
    copy(fragment, to: slot)
    datagrams[slot].receivedByteCount &+= fragment.payloadByteCount
    guard datagrams[slot].isWhole else {
      counters.add(.held)
      return .held
    }
    return complete(slot)
  }

  /// Copies the data to its final place: the only time that it is copied.
  @inline(__always)
  private func copy(_ fragment: Fragment, to slot: Int) {
    let target = payload(of: slot)
    guard fragment.byteOffset == 0 else {
      (target + fragment.byteOffset).copyMemory(
        from: fragment.packet + fragment.headerByteCount, byteCount: fragment.payloadByteCount)
      return
    }
    let byteCount = fragment.headerByteCount &+ fragment.payloadByteCount
    (target - fragment.headerByteCount).copyMemory(from: fragment.packet, byteCount: byteCount)
    datagrams[slot].headerByteCount = fragment.headerByteCount
    datagrams[slot].firstByteCount = byteCount
    datagrams[slot].numberByteOffset = fragment.numberByteOffset
  }

  /// Turns the first fragment's header into that of the whole packet. The length is checked again
  /// (F2): the first fragment may have more options than the others, whose lengths were checked
  /// with their own headers.
  @inline(__always)
  private mutating func complete(_ slot: Int) -> Outcome {
    let first = payload(of: slot) - datagrams[slot].headerByteCount
    var byteCount = datagrams[slot].headerByteCount &+ datagrams[slot].totalByteCount
    let isIPv4 = datagrams[slot].key.family == .ipv4
    if !isIPv4 { byteCount &-= IPv6Extensions.fragmentHeaderByteCount }
    let lengthField = isIPv4 ? byteCount : byteCount &- IPv6Header.byteCount
    guard lengthField <= 65_535 else { return poison(slot, .impossibleLength) }
    guard byteCount <= maximumPacketByteCount else { return poison(slot, .tooLarge) }
    // Different marks can only be ECT and CE here (RFC 3168 section 5.3; F12).
    let isCongested = datagrams[slot].marks & 0b1000 != 0
    let start: UnsafeMutableRawPointer
    if isIPv4 {
      let header = IPv4Header(writtenAt: first)
      header.becomeWhole(totalByteCount: byteCount, isCongested: isCongested)
      start = first
    } else {
      let header = IPv6Header(writtenAt: first).removeFragmentHeader(
        at: datagrams[slot].headerByteCount &- IPv6Extensions.fragmentHeaderByteCount,
        numberByteOffset: datagrams[slot].numberByteOffset, totalByteCount: byteCount)
      if isCongested { header.trafficClass |= ECN.congestionExperienced }
      start = header.bytes
    }
    unlink(slot)
    completed |= 1 &<< UInt64(truncatingIfNeeded: slot)
    counters.add(.reassembled)
    return .complete(UnsafeMutableRawBufferPointer(start: start, count: byteCount), slot: slot)
  }

  /// Discards the slot's datagram. The slot stays in use, and so does its key (F3).
  private func poison(_ slot: Int, _ verdict: FragmentVerdict) -> Outcome {
    datagrams[slot].isPoisoned = true
    return drop(verdict)
  }

  // MARK: Slots

  /// Frees the slot of a packet that was `complete`. Its memory must not be used afterwards.
  public mutating func release(_ slot: Int) {
    precondition(slot >= 0 && slot < Reassembler.slots)
    let bit: UInt64 = 1 &<< UInt64(truncatingIfNeeded: slot)
    precondition(completed & bit != 0, "the slot holds no packet")
    completed &= ~bit
    free |= bit
  }

  /// A slot for a new datagram, which may replace an old one. Nil if all slots hold completed
  /// packets that are still in use.
  private mutating func claim(for key: FragmentKey, bucket: Int, at now: Instant) -> Int? {
    if free == 0 {
      guard let victim = shares.oldestOfTheMost(datagrams) ?? oldest else { return nil }
      forget(victim, .evicted)
    }
    let slot = free.trailingZeroBitCount
    free &= free &- 1
    number &+= 1
    let source = shares.add(slot, key, hash)
    datagrams[slot] = FragmentedDatagram(key, since: now, number: number, source: source)
    buckets.append(slot, to: bucket)
    ages.append(slot, to: Reassembler.ages(of: key.family))
    return slot
  }

  /// The slot of the oldest datagram; nil for none.
  private var oldest: Int? {
    let (ipv4, ipv6) = (oldest(.ipv4), oldest(.ipv6))
    guard ipv4 < Reassembler.slots else { return ipv6 < Reassembler.slots ? ipv6 : nil }
    guard ipv6 < Reassembler.slots else { return ipv4 }
    return datagrams[ipv4].number < datagrams[ipv6].number ? ipv4 : ipv6
  }

  /// Frees the slot of an incomplete datagram. Its bytes remain until the slot is reused.
  mutating func forget(_ slot: Int, _ verdict: FragmentVerdict) {
    unlink(slot)
    free |= 1 &<< UInt64(truncatingIfNeeded: slot)
    counters.add(verdict)
  }

  @inline(__always)
  private mutating func unlink(_ slot: Int) {
    buckets.unlink(slot)
    ages.unlink(slot)
    shares.remove(slot, of: datagrams[slot].source)
    coverage(of: slot).clear(byteCount: datagrams[slot].extentByteCount)
  }
}

/// The state of a datagram under reassembly; its bytes are in its slot's region.
struct FragmentedDatagram: BitwiseCopyable {
  var key: FragmentKey
  /// Bytes of payload, known from the last fragment; 0 before.
  var totalByteCount: Int
  /// Bytes of payload received.
  var receivedByteCount: Int
  /// The end of the furthest fragment.
  var extentByteCount: Int
  var fragmentCount: Int
  /// Bytes before the data of the fragment with offset 0; 0 until that fragment arrives.
  var headerByteCount: Int
  /// Bytes of the fragment with offset 0, headers included.
  var firstByteCount: Int
  /// IPv6: the offset in the packet of the next-header field that names the fragment header.
  var numberByteOffset: Int
  /// A bit for each ECN codepoint received.
  var marks: UInt8
  /// The number of its source in `SourceShares`.
  var source: UInt8
  /// It was discarded, and its key may not be used until its time is over (F3).
  var isPoisoned: Bool
  /// When its first fragment arrived.
  var since: Instant
  /// Counts up with every datagram: the smaller of two numbers is the older datagram's.
  var number: UInt64

  @inline(__always)
  init(_ key: FragmentKey, since: Instant, number: UInt64, source: UInt8) {
    self.key = key
    self.since = since
    self.number = number
    self.source = source
    totalByteCount = 0
    receivedByteCount = 0
    extentByteCount = 0
    fragmentCount = 0
    headerByteCount = 0
    firstByteCount = 0
    numberByteOffset = 0
    marks = 0
    isPoisoned = false
  }

  @inline(__always)
  var isWhole: Bool { receivedByteCount == totalByteCount }

  /// How long it waits, in nanoseconds (F9).
  @inline(__always)
  private var time: UInt64 {
    key.family == .ipv4 ? Policy.reassemblyTimeIPv4 : Policy.reassemblyTimeIPv6
  }

  @inline(__always)
  var deadline: Deadline { .after(time, from: since) }

  @inline(__always)
  func isOver(at now: Instant) -> Bool { now.since(since) >= time }

  /// How `fragment` contradicts the known end of the datagram; nil if it does not. A last fragment
  /// sets the end.
  @inline(__always)
  mutating func refusal(of fragment: Fragment) -> FragmentVerdict? {
    let end = fragment.endByteOffset
    if fragment.isLast {
      if totalByteCount != 0 { return totalByteCount == end ? nil : .differentEnd }
      guard extentByteCount <= end else { return .beyondEnd }
      totalByteCount = end
    } else if totalByteCount != 0, end >= totalByteCount {
      return .beyondEnd
    }
    return nil
  }
}
