/// What has been staged for one peer and awaits commit (`AllowedIPs+Staging`).
struct AllowedIPStaging: BitwiseCopyable {
  /// Ends of the list of staged nodes, 0 for none.
  var first: UInt32 = 0
  var last: UInt32 = 0
  /// Commit starts by taking all its prefixes from the peer.
  var replacesAll = false
}
