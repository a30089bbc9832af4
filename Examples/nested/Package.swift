// swift-tools-version: 6.2
import PackageDescription

let package = Package(
  name: "nested",
  dependencies: [.package(name: "culvert", path: "../..")],
  targets: [
    .executableTarget(
      name: "nested", dependencies: [.product(name: "Culvert", package: "culvert")])
  ]
)
