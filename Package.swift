// swift-tools-version: 6.2
// One source, two builds: ordinary Swift on the host (tests, sanitizers, fuzzing) and Embedded
// Swift for the shipped static binary (docs/ARCHITECTURE.md, "Two builds").
import PackageDescription

let swift: [SwiftSetting] = [
  .enableUpcomingFeature("ExistentialAny"),
  .enableUpcomingFeature("MemberImportVisibility"),
  .treatAllWarnings(as: .error),
]
let c: [CSetting] = [
  .treatAllWarnings(as: .error),
  .enableWarning("all"),
  .enableWarning("extra"),
]

let package = Package(
  name: "culvert",
  products: [
    .executable(name: "culvert", targets: ["culvert"]),
    .library(name: "Culvert", targets: ["Culvert"]),
  ],
  targets: [
    // No pkgConfig: it would leak the host's -L paths into cross builds. The users link it.
    .systemLibrary(name: "CSodium", providers: [.apt(["libsodium-dev"])]),
    .target(name: "CLinux", cSettings: c),
    .target(
      name: "Culvert",
      dependencies: ["CSodium"],
      swiftSettings: swift,
      linkerSettings: [.linkedLibrary("sodium")]
    ),
    .target(name: "CulvertLinux", dependencies: ["Culvert", "CLinux"], swiftSettings: swift),
    .executableTarget(
      name: "culvert", dependencies: ["Culvert", "CulvertLinux"], swiftSettings: swift),
    .testTarget(
      name: "CulvertTests", dependencies: ["Culvert"], path: "Tests/Unit/CulvertTests",
      swiftSettings: swift),
    .testTarget(
      name: "CulvertLinuxTests", dependencies: ["CulvertLinux", "CLinux"],
      path: "Tests/Unit/CulvertLinuxTests", swiftSettings: swift),
  ],
  swiftLanguageModes: [.v6]
)
