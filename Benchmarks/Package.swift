// swift-tools-version: 6.2
import PackageDescription

// A package of its own: it drives the cell from outside, as any client would, and shares no code
// with it. It has no dependencies either, so what it measures is not what it is made of.

let settings: [SwiftSetting] = [
    .swiftLanguageMode(.v6),
    .enableUpcomingFeature("ExistentialAny"),
    .enableUpcomingFeature("InternalImportsByDefault"),
    .enableUpcomingFeature("MemberImportVisibility"),
]

let package = Package(
    name: "millrace-benchmarks",
    products: [.executable(name: "bench", targets: ["Bench"])],
    targets: [
        .target(name: "S2SClient", swiftSettings: settings),
        .executableTarget(name: "Bench", dependencies: ["S2SClient"], swiftSettings: settings),
    ]
)
