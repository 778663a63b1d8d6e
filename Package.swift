// swift-tools-version: 6.2
import PackageDescription

/// Known bugs for the simulator to find: they are in no release build unless it is asked for them.
let mutants: SwiftSetting =
    Context.environment["MILLRACE_MUTANTS"] == nil
    ? .define("MUTANTS", .when(configuration: .debug)) : .define("MUTANTS")

let settings: [SwiftSetting] = [
    mutants,
    .swiftLanguageMode(.v6),
    .enableUpcomingFeature("ExistentialAny"),
    .enableUpcomingFeature("InternalImportsByDefault"),
    .enableUpcomingFeature("MemberImportVisibility"),
    .enableUpcomingFeature("NonisolatedNonsendingByDefault"),
]

/// A library of `Sources/Shared`: its folder bears its name.
func shared(_ name: String, _ dependencies: [Target.Dependency] = []) -> Target {
    .target(
        name: name, dependencies: dependencies, path: "Sources/Shared/\(name)",
        swiftSettings: settings)
}

/// A role: a library that sees protocols only, and an executable that wires it to drivers.
func role(_ name: String, _ dependencies: [Target.Dependency]) -> [Target] {
    [
        .target(
            name: "\(name)Role", dependencies: dependencies, path: "Sources/\(name)/Role",
            swiftSettings: settings),
        .executableTarget(
            name: name, dependencies: [.target(name: "\(name)Role"), "Shared"],
            path: "Sources/\(name)", exclude: ["Role"], swiftSettings: settings),
    ]
}

func tests(_ name: String, _ dependencies: [Target.Dependency]) -> Target {
    .testTarget(name: name, dependencies: dependencies, swiftSettings: settings)
}

func system(_ name: String, _ pkgConfig: String, _ package: String) -> Target {
    .systemLibrary(
        name: name, path: "Sources/Shared/System/\(name)", pkgConfig: pkgConfig,
        providers: [.apt([package])])
}

let nioCore: Target.Dependency = .product(name: "NIOCore", package: "swift-nio")
let nioPosix: Target.Dependency = .product(name: "NIOPosix", package: "swift-nio")
let deque: Target.Dependency = .product(name: "DequeModule", package: "swift-collections")
let logging: Target.Dependency = .product(name: "Logging", package: "swift-log")

/// The libraries of `Sources/Shared`, which `Shared` re-exports to executables.
let libraries = [
    "Primitives", "Records", "Log", "Observability", "Configuration", "ObjectStorage", "Metadata",
    "RPC", "HTTP", "Crypto", "Compression", "S3", "Postgres", "Transport", "Process",
]

let sharedTargets: [Target] = [
    .target(name: "CSupport", path: "Sources/Shared/System/CSupport"),
    .target(
        name: "CCurlSupport", dependencies: ["CCurl"],
        path: "Sources/Shared/System/CCurlSupport"),
    system("CCurl", "libcurl", "libcurl4-openssl-dev"),
    system("CPostgres", "libpq", "libpq-dev"),
    system("COpenSSL", "libcrypto", "libssl-dev"),
    system("CZstd", "libzstd", "libzstd-dev"),
    system("CZlib", "zlib", "zlib1g-dev"),

    shared("Primitives", ["CSupport"]),
    shared("Records", ["Primitives"]),
    shared("Log", ["Primitives", "Records"]),
    shared("Observability", ["Primitives", "CSupport", logging]),
    shared("Configuration", ["Primitives"]),
    shared("ObjectStorage", ["Primitives", "CSupport"]),
    shared("Metadata", ["Primitives", "Records"]),
    shared("RPC", ["Primitives", "Records", deque]),
    shared("HTTP", ["Primitives"]),
    shared("Crypto", ["Primitives", "COpenSSL"]),
    shared("Compression", ["Primitives", "CZstd", "CZlib"]),
    shared(
        "S3", ["Primitives", "ObjectStorage", "Crypto", "CCurl", "CCurlSupport", "CSupport"]),
    shared("Postgres", ["Primitives", "Records", "Metadata", "CPostgres", "CSupport"]),
    shared(
        "Transport",
        [
            "Primitives", "RPC", "HTTP", "CSupport", nioCore, nioPosix,
            .product(name: "NIOHTTP1", package: "swift-nio"),
            .product(name: "NIOHTTP2", package: "swift-nio-http2"),
            .product(name: "NIOHPACK", package: "swift-nio-http2"),
            .product(name: "NIOSSL", package: "swift-nio-ssl"),
        ]),
    shared(
        "Process", libraries.filter { $0 != "Process" }.map { .target(name: $0) } + ["CSupport"]),
    .target(
        name: "Shared", dependencies: libraries.map { .target(name: $0) }, path: "Sources/Shared",
        exclude: libraries + ["System"], swiftSettings: settings),
]

let protocols: [Target.Dependency] = [
    "Primitives", "Records", "Log", "Observability", "ObjectStorage", "Metadata", "RPC",
]

let roleTargets: [Target] =
    role("Frontend", protocols + [deque, "HTTP", "Compression"])
    + role("Channel", protocols + [deque])
    + role("Cachey", protocols + [deque, "HTTP"])
    + role("Cop", protocols)
    + role("BgTask", protocols)
    + [
        .target(
            name: "Simulation",
            dependencies: protocols + [
                deque, "HTTP", "ChannelRole", "FrontendRole", "CacheyRole", "CopRole", "BgTaskRole",
            ],
            path: "Sources/Simulator/Simulation", swiftSettings: settings),
        .executableTarget(
            name: "Simulator", dependencies: ["Simulation", "ChannelRole"],
            path: "Sources/Simulator", exclude: ["Simulation"], swiftSettings: settings),
    ]

let testTargets: [Target] = [
    .target(
        name: "TestSupport",
        dependencies: ["Primitives", "Records", "ObjectStorage", "Metadata"],
        path: "Tests/TestSupport", swiftSettings: settings),
    .target(
        name: "PostgresSupport",
        dependencies: ["Primitives", "Metadata", "Postgres", "TestSupport"],
        path: "Tests/PostgresSupport", swiftSettings: settings),
    tests("PrimitivesTests", ["Primitives", "CSupport"]),
    tests("RecordsTests", ["Primitives", "Records", "TestSupport"]),
    tests("LogTests", ["Primitives", "Records", "Log", "TestSupport"]),
    tests("ConfigurationTests", ["Configuration", "Primitives"]),
    tests("CryptoTests", ["Crypto", "Primitives"]),
    tests("CompressionTests", ["Compression", "Primitives", "TestSupport"]),
    tests("HTTPTests", ["HTTP", "Primitives", "TestSupport"]),
    tests("ObjectStorageTests", ["ObjectStorage", "Primitives", "TestSupport"]),
    tests("S3Tests", ["S3", "ObjectStorage", "Primitives", "Crypto", "TestSupport"]),
    tests(
        "MetadataTests",
        ["Primitives", "Records", "Metadata", "Postgres", "PostgresSupport"]),
    tests(
        "PostgresTests",
        ["Primitives", "Records", "Metadata", "Postgres", "PostgresSupport"]),
    tests("RPCTests", ["RPC", "Primitives", "Records", "TestSupport"]),
    tests("TransportTests", ["Transport", "RPC", "HTTP", "Primitives", nioCore]),
    tests("ChannelTests", protocols + ["ChannelRole", "Simulation", "CSupport"]),
    tests("FrontendTests", protocols + ["FrontendRole", "HTTP", "Compression", "TestSupport"]),
    tests(
        "CacheyTests",
        protocols + ["CacheyRole", "Cachey", "HTTP", "Transport", "TestSupport"]),
    tests("BgTaskTests", protocols + ["BgTaskRole", "TestSupport"]),
    tests("CopTests", protocols + ["CopRole", "TestSupport"]),
    .testTarget(
        name: "CellTests",
        dependencies: ["Frontend", "Channel", "Cachey", "BgTask", "Cop", "TestSupport"],
        exclude: ["Scripts"],
        swiftSettings: settings),
    tests(
        "SimulationTests",
        protocols + ["Simulation", "ChannelRole", "CacheyRole", "CopRole", "BgTaskRole"]),
    tests("TidyTests", []),
]

let package = Package(
    name: "millrace",
    products: [
        .executable(name: "frontend", targets: ["Frontend"]),
        .executable(name: "channel", targets: ["Channel"]),
        .executable(name: "cachey", targets: ["Cachey"]),
        .executable(name: "cop", targets: ["Cop"]),
        .executable(name: "bgtask", targets: ["BgTask"]),
        .executable(name: "simulator", targets: ["Simulator"]),
    ],
    dependencies: [
        .package(url: "https://github.com/apple/swift-nio", from: "2.101.2"),
        .package(url: "https://github.com/apple/swift-nio-http2", from: "1.46.0"),
        .package(url: "https://github.com/apple/swift-nio-ssl", from: "2.37.6"),
        .package(url: "https://github.com/apple/swift-log", from: "1.16.2"),
        .package(url: "https://github.com/apple/swift-collections", from: "1.6.0"),
    ],
    targets: sharedTargets + roleTargets + testTargets
)
