import Testing

@testable import Culvert

/// The same lines given to wg(8), version 1.0.20210914, by hand (`wg setconf`), with what it said:
/// where Culvert decides otherwise, it does so on purpose, as `ConfigParser` explains.
@Suite struct ConfigComparisonTests {
  /// Under [Interface]: wg(8) takes it, and so do we.
  static let takenInInterface = [
    "ListenPort = 51820", "listenport=51820", "LISTENPORT =\t51820", "Listen Port = 51 820",
    "ListenPort = 0", "ListenPort = 65535", "ListenPort = 070", "ListenPort = 1 # two",
    "FwMark = 0x1f", "FwMark = 0xFFFFFFFF", "FwMark = 4294967295", "FwMark = off",
    "FwMark = OFF", "FwMark = 0", "FwMark = 08", "PrivateKey = @1",
    "PrivateKey = AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=", "[Interface]", "[interface]",
    "[ Interface ]", "[INTERFACE] # x", "#", "  # x", "#ListenPort=x", "ListenPort=5#5",
    "\tListenPort\u{b}=\u{c}5\r",
  ]

  /// Under [Interface]: wg(8) takes it, and we do not.
  static let stricterInInterface = [
    "ListenPort = 65536", "ListenPort = +1", "PrivateKey = @1\nPrivateKey = @2",
  ]

  /// Under [Interface]: wg(8) refuses it, and so do we.
  static let refusedInInterface = [
    "ListenPort = -1", "ListenPort =", "ListenPort", "ListenPort = 0x10", "ListenPort = ssh",
    "ListenPort = 1 ; two", "ListenPort : 1", "FwMark = 0x100000000", "FwMark = 4294967296",
    "FwMark = 0x", "FwMark =", "FwMark = x", "FwMark = 1f", "PrivateKey = @3", "PrivateKey =",
    "PrivateKey = @9", "PrivateKey = @1=", "Unknown = 1", "= 1", "PublicKey = @1", "[Interface",
    "[Interface]]", "[Foo]", "[]", "ListenPort#=5",
  ]

  /// Under [Interface]: wg(8) refuses it, and we do not.
  static let looserInInterface = [
    "FwMark = 0X1f", "Address = 10.0.0.1/24", "MTU = 1420",
  ]

  /// Under [Peer] and a public key: wg(8) takes it, and so do we.
  static let takenInPeer = [
    "", "Endpoint = 1.2.3.4:5", "Endpoint = 1.2.3.4 : 5", "Endpoint = [::1]:5",
    "Endpoint = ::1:5", "Endpoint = [1.2.3.4]:5", "Endpoint = [localhost]:5",
    "Endpoint = localhost:5", "Endpoint = LocalHost:5", "Endpoint = 1.2.3.4:65535",
    "Endpoint = 1.2.3.4:05", "Endpoint = [fe80::1%lo]:5", "Endpoint = [fe80::1%1]:5",
    "Endpoint = fe80::1%lo:5", "Endpoint = [::ffff:1.2.3.4]:5", "AllowedIPs = 10.0.0.0/8",
    "AllowedIPs = 10.1.2.3/8", "AllowedIPs = 10.0.0.1", "AllowedIPs = 10.0.0.0/8,10.0.0.0/8",
    "AllowedIPs = 10.0.0.0/8 , ::/0", "AllowedIPs = 10.0.0.0/08", "AllowedIPs = 10.0.0.0/ 8",
    "AllowedIPs = 1 0.0.0.0/8", "AllowedIPs = ::ffff:1.2.3.4",
    "AllowedIPs = 10.0.0.0/8\nAllowedIPs = 11.0.0.0/8", "PersistentKeepalive = 25",
    "PersistentKeepalive = off", "PersistentKeepalive = OFF", "PersistentKeepalive = 0",
    "PersistentKeepalive = 65535", "PersistentKeepalive = 025", "PresharedKey = @2",
    "PresharedKey = AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=", "[Peer]\nPublicKey=@1",
    "[Peer]\nPublicKey=@2", "[Interface]\nListenPort=7",
  ]

  /// Under [Peer] and a public key: wg(8) takes it, and we do not.
  static let stricterInPeer = [
    "Endpoint = 1.2.3.4:0", "Endpoint = 1.2.3.4:65536", "Endpoint = 127.1:5", "Endpoint = 1:5",
    "Endpoint = 0x7f.1:5", "PublicKey = @2", "PublicKey = @1",
  ]

  /// Under [Peer] and a public key: wg(8) refuses it, and so do we.
  static let refusedInPeer = [
    "Endpoint = localhost", "Endpoint = localhost:", "Endpoint = :5", "Endpoint = ",
    "Endpoint = 1.2.3.4:http", "Endpoint = [::1]5", "Endpoint = [::1]", "Endpoint = [::1",
    "Endpoint = ::1]:5", "Endpoint = 1.2.3.256:5", "Endpoint = a..b:5", "Endpoint = -a:5",
    "Endpoint = 1.2.3.4:5:6",
    "Endpoint = aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa.invalid:5",
    "AllowedIPs", "AllowedIPs = 10.0.0.0/8,", "AllowedIPs = ,10.0.0.0/8",
    "AllowedIPs = 10.0.0.0/8,,::/0", "AllowedIPs = ,", "AllowedIPs = 10.0.0.0/33",
    "AllowedIPs = ::/129", "AllowedIPs = 10.0.0.0/", "AllowedIPs = 10.0.0.0/+8",
    "AllowedIPs = 10.0.0.0/0x8", "AllowedIPs = 10.0.0.0/8 10.1.0.0/16", "AllowedIPs = 10.0.0/8",
    "AllowedIPs = 010.0.0.0/8", "AllowedIPs = fe80::1%lo/64", "AllowedIPs = localhost/32",
    "AllowedIPs = 0/0", "AllowedIPs = 10.0.0.0/8/8", "AllowedIPs = ::/999999999999999999999",
    "AllowedIPs = /8", "PersistentKeepalive = 65536", "PersistentKeepalive = -1",
    "PersistentKeepalive =", "PersistentKeepalive = 25s", "PersistentKeepalive = on",
    "PresharedKey = x", "PresharedKey =", "PrivateKey = @1", "ListenPort = 5", "Unknown = 1",
    "[Peer]", "DNS = 1.1.1.1",
  ]

  /// Under [Peer] and a public key: wg(8) refuses it, and we do not.
  static let looserInPeer = [
    "AllowedIPs =", "AllowedIPs = ", "AllowedIPs = +10.0.0.0/8", "AllowedIPs = -10.0.0.0/8",
    "AllowedIPs = 10.0.0.0/8\nAllowedIPs = \n",
  ]

  /// Whole files: wg(8) takes them, and so do we.
  static let takenFiles = [
    "", "\n\n", "[Peer]\nAllowedIPs=10.0.0.0/8\nPublicKey=@1", "[Interface]\r\nListenPort=5\r\n",
    "[Interface]\nPrivateKey=@1\n[Peer]\nPublicKey=@1",
  ]

  /// Whole files: wg(8) takes them, and we do not.
  static let stricterFiles = [
    "[Interface]\nListenPort=5\n[Peer]\nPublicKey=@1\n[Interface]\nListenPort=6"
  ]

  /// Whole files: wg(8) refuses them, and so do we.
  static let refusedFiles = [
    "ListenPort=5\n", "[Peer]\n", "[Peer]\n[Peer]\nPublicKey=@1", "[Interface]\rListenPort=5\r",
  ]

  private func isTaken(_ text: String) -> Bool {
    let keys = [
      "@1": ConfigFixture.otherText, "@2": ConfigFixture.keyText,
      "@3": String(ConfigFixture.otherText.dropLast()),
      "@9": String(ConfigFixture.otherText.dropLast(2)) + "9=",
    ]
    let whole = keys.reduce(text) { $0.replacing($1.key, with: $1.value) }
    // Only we insist on a private key.
    let reason = ConfigFixture(whole + "\n").reason
    return reason == nil || reason == .noPrivateKey
  }

  @Test(arguments: takenInInterface + looserInInterface)
  func interfaceLinesThatAreTaken(_ line: String) { #expect(isTaken("[Interface]\n" + line)) }

  @Test(arguments: refusedInInterface + stricterInInterface)
  func interfaceLinesThatAreRefused(_ line: String) { #expect(!isTaken("[Interface]\n" + line)) }

  @Test(arguments: takenInPeer + looserInPeer)
  func peerLinesThatAreTaken(_ line: String) {
    #expect(isTaken("[Peer]\nPublicKey = @1\n" + line))
  }

  @Test(arguments: refusedInPeer + stricterInPeer)
  func peerLinesThatAreRefused(_ line: String) {
    #expect(!isTaken("[Peer]\nPublicKey = @1\n" + line))
  }

  @Test(arguments: takenFiles)
  func filesThatAreTaken(_ text: String) { #expect(isTaken(text)) }

  @Test(arguments: refusedFiles + stricterFiles)
  func filesThatAreRefused(_ text: String) { #expect(!isTaken(text)) }
}
