// swift-tools-version: 6.2
// One source, two builds: ordinary Swift on the host (tests, sanitizers, fuzzing) and Embedded
// Swift for the shipped static binary (docs/ARCHITECTURE.md, "Two builds").
import PackageDescription

let settings: [SwiftSetting] = [
  .enableUpcomingFeature("ExistentialAny"),
  .swiftLanguageMode(.v6),
]

let package = Package(
  name: "culvert",
  products: [
    .executable(name: "culvert", targets: ["culvert"]),
    .library(name: "Culvert", targets: ["Culvert"]),
  ],
  targets: [
    // The link flag stands on the users, not in pkgConfig: pkg-config would leak the host's -L
    // paths into cross builds.
    .systemLibrary(name: "CSodium", providers: [.apt(["libsodium-dev"])]),
    .target(name: "CLinux"),
    .target(
      name: "Culvert",
      dependencies: ["CSodium"],
      swiftSettings: settings,
      linkerSettings: [.linkedLibrary("sodium")]
    ),
    .target(
      name: "CulvertLinux",
      dependencies: ["Culvert", "CLinux"],
      swiftSettings: settings
    ),
    .executableTarget(
      name: "culvert",
      dependencies: ["Culvert", "CulvertLinux"],
      swiftSettings: settings
    ),
    .testTarget(
      name: "CulvertTests",
      dependencies: ["Culvert"],
      swiftSettings: settings
    ),
  ]
)
