/// A fragment's way into its datagram, and the datagram's out of the ring.
extension Reassembler {
  @inline(__always)
  mutating func hold(_ fragment: Fragment, at now: Instant) -> Outcome {
    observe(now)
    let hash = fragment.key.hash(hash) &>> (32 &- Reassembler.bucketBits)
    let bucket = Reassembler.slots &+ Int(truncatingIfNeeded: hash)
    var slot = buckets.next(bucket)
    while slot < Reassembler.slots, !(datagrams[slot].key == fragment.key) {
      slot = buckets.next(slot)
    }
    // Not yet forgotten, but no longer to be added to: its identification may stand for another.
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
  private mutating func add(_ fragment: Fragment, to slot: Int) -> Outcome {
    let datagram = datagrams + slot
    guard !datagram.pointee.isPoisoned else { return drop(.poisoned) }
    let isEndKnown = datagram.pointee.totalByteCount != 0
    if let verdict = datagram.pointee.refusal(of: fragment) { return poison(slot, verdict) }
    datagram.pointee.extentByteCount =
      max(datagram.pointee.extentByteCount, fragment.endByteOffset)
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
    datagram.pointee.marks |= 1 &<< fragment.mark
    guard datagram.pointee.marks & 1 == 0 || datagram.pointee.marks == 1 else {
      return poison(slot, .brokenCongestionMark)
    }
    guard datagram.pointee.fragmentCount < maximumFragmentCount else {
      return poison(slot, .tooManyFragments)
    }
    datagram.pointee.fragmentCount &+= 1
    copy(fragment, to: slot)
    datagram.pointee.receivedByteCount &+= fragment.payloadByteCount
    guard datagram.pointee.isWhole else {
      counters.add(.held)
      return .held
    }
    return complete(slot)
  }

  /// The one copy.
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

  /// Makes the first fragment's header that of the whole packet. The first may have more options
  /// than those that were checked with their own headers, so the length is checked once more (F2).
  @inline(__always)
  private mutating func complete(_ slot: Int) -> Outcome {
    let datagram = datagrams + slot
    let first = payload(of: slot) - datagram.pointee.headerByteCount
    var byteCount = datagram.pointee.headerByteCount &+ datagram.pointee.totalByteCount
    let isIPv4 = datagram.pointee.key.family == .ipv4
    if !isIPv4 { byteCount &-= IPv6Extensions.fragmentHeaderByteCount }
    let lengthField = isIPv4 ? byteCount : byteCount &- IPv6Header.byteCount
    guard lengthField <= 65_535 else { return poison(slot, .impossibleLength) }
    guard byteCount <= maximumPacketByteCount else { return poison(slot, .tooLarge) }
    // ECT and CE were all there was, or this is no mix at all (RFC 3168 section 5.3; F12).
    let isCongested = datagram.pointee.marks & 0b1000 != 0
    let start: UnsafeMutableRawPointer
    if isIPv4 {
      let header = IPv4Header(writtenAt: first)
      header.becomeWhole(totalByteCount: byteCount, isCongested: isCongested)
      start = first
    } else {
      let header = IPv6Header(writtenAt: first).removeFragmentHeader(
        at: datagram.pointee.headerByteCount &- IPv6Extensions.fragmentHeaderByteCount,
        numberByteOffset: datagram.pointee.numberByteOffset, totalByteCount: byteCount)
      if isCongested { header.trafficClass |= ECN.congestionExperienced }
      start = header.bytes
    }
    unlink(slot)
    completed |= 1 &<< UInt64(truncatingIfNeeded: slot)
    counters.add(.reassembled)
    return .complete(UnsafeMutableRawBufferPointer(start: start, count: byteCount), slot: slot)
  }

  /// Discards what the slot holds; the slot stays taken, and its key with it (F3).
  private func poison(_ slot: Int, _ verdict: FragmentVerdict) -> Outcome {
    datagrams[slot].isPoisoned = true
    return drop(verdict)
  }

  // MARK: Slots

  /// Gives back the slot of a packet that was `complete`; its memory may be used no more.
  public mutating func release(_ slot: Int) {
    precondition(slot >= 0 && slot < Reassembler.slots)
    let bit: UInt64 = 1 &<< UInt64(truncatingIfNeeded: slot)
    precondition(completed & bit != 0, "the slot holds no packet")
    completed &= ~bit
    free |= bit
  }

  /// A slot for a new datagram, an old one's where there is no other; nil where all hold packets
  /// that are in use.
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

  /// Frees the slot of a datagram that never was whole; its bytes stay until the slot is claimed.
  mutating func forget(_ slot: Int, _ verdict: FragmentVerdict) {
    unlink(slot)
    free |= 1 &<< UInt64(truncatingIfNeeded: slot)
    counters.add(verdict)
  }

  @inline(__always)
  private mutating func unlink(_ slot: Int) {
    buckets.remove(slot)
    ages.remove(slot)
    shares.remove(slot, of: datagrams[slot].source)
    coverage(of: slot).clear(byteCount: datagrams[slot].extentByteCount)
  }
}

/// What is known of a datagram that is being put together; its bytes lie in its slot's region.
struct FragmentedDatagram: BitwiseCopyable {
  var key: FragmentKey
  /// Bytes of payload, known when the last fragment has come; 0 before.
  var totalByteCount: Int
  /// Bytes of payload that have come.
  var receivedByteCount: Int
  /// Where the furthest fragment ends.
  var extentByteCount: Int
  var fragmentCount: Int
  /// Of the fragment with offset 0, everything before its data; 0 until it comes.
  var headerByteCount: Int
  /// Of the fragment with offset 0, headers included.
  var firstByteCount: Int
  /// Of IPv6: where, from the packet's start, the number of the fragment header stands.
  var numberByteOffset: Int
  /// A bit for each ECN codepoint that has come.
  var marks: UInt8
  /// Its source's number in `SourceShares`.
  var source: UInt8
  /// It was discarded, and its key is not to be used until its time is over (F3).
  var isPoisoned: Bool
  /// When its first fragment came.
  var since: Instant
  /// Counts up with every datagram: which of two is older.
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

  /// How long it may wait, in nanoseconds (F9).
  @inline(__always)
  private var time: UInt64 {
    key.family == .ipv4 ? Policy.reassemblyTimeIPv4 : Policy.reassemblyTimeIPv6
  }

  @inline(__always)
  var deadline: Deadline { .after(time, from: since) }

  @inline(__always)
  func isOver(at now: Instant) -> Bool { now.since(since) >= time }

  /// How `fragment` contradicts what is known of the datagram's end; nil where it does not. Then
  /// the end is remembered.
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
