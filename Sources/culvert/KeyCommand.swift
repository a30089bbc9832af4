import Culvert
import CulvertLinux

/// `genkey`, `genpsk` and `pubkey`, as wg(8) has them.
enum KeyCommand {
  private static let textByteCount = 44

  static func generate(clamped: Bool) -> Int32 {
    withUnsafeTemporaryAllocation(byteCount: WireGuard.keyByteCount, alignment: 8) { key in
      var entropy = Entropy.sodium
      entropy.fill(key.baseAddress!, byteCount: key.count)
      if clamped { X25519.clamp(key.baseAddress!) }
      printKey(key.baseAddress!)
      Secret.wipe(key.baseAddress!, byteCount: key.count)
      return 0
    }
  }

  static func derivePublic() -> Int32 {
    withUnsafeTemporaryAllocation(byteCount: 128, alignment: 8) { buffer in
      var count = Output.readInput(
        into: UnsafeMutableRawBufferPointer(rebasing: buffer[..<64]))
      while count > 0, buffer[count - 1] <= 0x20 { count -= 1 }
      let text = UnsafeRawBufferPointer(rebasing: buffer[..<count])
      let secret = buffer.baseAddress! + 64
      let publicKey = secret + WireGuard.keyByteCount
      defer { Secret.wipe(buffer.baseAddress!, byteCount: buffer.count) }
      guard Base64.decodeKey(text, into: secret) else {
        return Exit.fail(Exit.failure) {
          $0.append("no key on standard input: culvert genkey | culvert pubkey")
        }
      }
      X25519.clamp(secret)
      X25519.publicKey(into: publicKey, secret: secret)
      printKey(publicKey)
      return 0
    }
  }

  private static func printKey(_ key: UnsafeRawPointer) {
    withUnsafeTemporaryAllocation(byteCount: textByteCount + 1, alignment: 1) { buffer in
      var writer = ByteWriter(buffer)
      Base64.appendKey(key, to: &writer)
      writer.append(0x0a)
      Output.write(writer.written, to: Output.standardOutput)
      Secret.wipe(buffer.baseAddress!, byteCount: buffer.count)
    }
  }
}
