// SPDX-License-Identifier: Apache-2.0

import Foundation
import Testing

/// The rules of this code base that a compiler does not know.
@Suite struct TidyTests {
    /// What each library may import, beyond the standard library. Imports point one way.
    static let imports: [String: Set<String>] = [
        "Primitives": ["CSupport"],
        "Records": ["Primitives"],
        "Log": ["Primitives", "Records"],
        "Observability": ["Primitives", "Logging", "CSupport"],
        // The folder store is made of system calls.
        "ObjectStorage": ["Primitives", "CSupport", "Glibc", "Synchronization"],
        "Metadata": ["Primitives", "Records", "Synchronization"],
        "Configuration": ["Primitives"],
        "RPC": ["Primitives", "Records", "DequeModule"],
        "HTTP": ["Primitives"],
        "Crypto": ["Primitives", "COpenSSL"],
        "Compression": ["Primitives", "CZstd", "CZlib"],
        "S3": ["Primitives", "ObjectStorage", "Crypto", "CCurl", "CCurlSupport", "CSupport"],
        "Postgres": ["Primitives", "Records", "Metadata", "CPostgres", "CSupport"],
        // What every executable is made of: it wires the drivers together.
        "Process": [
            "Primitives", "Log", "Observability", "Configuration", "ObjectStorage", "Metadata",
            "RPC", "HTTP", "S3", "Postgres", "Transport", "Glibc", "CSupport",
        ],
        "Transport": [
            "Primitives", "RPC", "HTTP", "CSupport", "NIOCore", "NIOPosix", "NIOHTTP1", "NIOHTTP2",
            "NIOHPACK", "NIOSSL",
        ],
    ]
    /// What a role may import: values, formats and protocols, never a driver.
    static let roleImports: Set<String> = [
        "Primitives", "Records", "Log", "Observability", "ObjectStorage", "Metadata", "RPC", "HTTP",
        "Compression", "DequeModule",
    ]
    static let roles: Set<String> = ["Frontend", "Channel", "Cachey", "Cop", "BgTask"]
    /// Libraries without input and output, clocks, and threads.
    static let pure: Set<String> = [
        "Primitives", "Records", "Log", "ObjectStorage", "Metadata", "RPC", "HTTP",
    ]
    /// What drivers and executables may use of the platform.
    static let platform: Set<String> = ["Glibc", "Synchronization", "Foundation", "Dispatch"]
    /// Packages that executables may import besides `Shared` and their role.
    static let executableImports: Set<String> = ["Shared", "Logging", "NIOCore", "NIOPosix"]

    /// Calls that would escape a role's loop or the simulator, and what to use instead.
    static let banned: [(call: String, instead: String)] = [
        ("Task {", "loop.spawn"), ("Task(", "loop.spawn"), ("Task.sleep", "loop.sleep"),
        ("Task.detached", "loop.spawn"), ("Date(", "loop.wallMilliseconds"),
        ("ContinuousClock", "loop.now"), ("SuspendingClock", "loop.now"),
        ("DispatchQueue", "loop.execute"), ("Thread(", "loop.execute"),
        (".random(", "RandomSource"), (".randomElement(", "RandomSource"),
        (".shuffled(", "RandomSource"), ("SystemRandomNumberGenerator", "RandomSource"),
        ("UUID(", "ID128"), ("@MainActor", "a loop"), ("print(", "the log"),
        ("ProcessInfo", "a parameter"),
    ]
    /// The places where what is banned elsewhere is provided.
    static let providers: Set<String> = [
        "Primitives/Loop.swift: Task(", "Primitives/Random.swift: SystemRandomNumberGenerator",
        // Names of temporary files, which no other process may use.
        "ObjectStorage/FolderTree.swift: SystemRandomNumberGenerator",
    ]

    @Test func theTreeIsFound() throws {
        let files = try Tree.swiftFiles()
        #expect(files.count > 20)
        #expect(files.contains { $0.path.hasSuffix("Sources/Shared/Primitives/Bytes.swift") })
    }

    @Test func everyLibraryHasItsImports() throws {
        let names = Set(try Tree.swiftFiles().compactMap(\.library))
        #expect(names.subtracting(Self.imports.keys) == [], "libraries without a rule")
    }

    @Test func importsPointOneWay() throws {
        var faults: [String] = []
        for file in try Tree.swiftFiles() {
            let allowed: Set<String>
            if let library = file.library {
                let own = Self.imports[library] ?? []
                allowed = Self.pure.contains(library) ? own : own.union(Self.platform)
            } else if file.role != nil {
                allowed = Self.roleImports
            } else if let executable = file.executable {
                allowed = Self.executableImports.union(Self.platform)
                    .union([executable + "Role"])
            } else if file.path.hasPrefix("Sources/Simulator/") {
                allowed = Self.roleImports.union(Self.roles.map { $0 + "Role" })
                    .union(["Simulation", "Glibc", "Synchronization"])
            } else {
                continue
            }
            for (number, module) in file.imports where !allowed.contains(module) {
                faults.append("\(file.name):\(number): must not import \(module)")
            }
        }
        #expect(faults == [])
    }

    @Test func onlyOneLibrarySeesEachOfTheseModules() throws {
        let owners: [(prefix: String, owners: Set<String>)] = [
            ("CCurl", ["S3"]), ("CPostgres", ["Postgres"]), ("COpenSSL", ["Crypto"]),
            ("CZstd", ["Compression"]), ("CZlib", ["Compression"]), ("NIO", ["Transport"]),
        ]
        var faults: [String] = []
        for file in try Tree.swiftFiles() where file.isSource {
            for (number, module) in file.imports {
                for (prefix, owners) in owners where module.hasPrefix(prefix) {
                    guard let library = file.library else {
                        // An executable starts event loops; a role never sees one.
                        if file.role == nil && prefix == "NIO" { continue }
                        faults.append("\(file.name):\(number): imports \(module)")
                        continue
                    }
                    if !owners.contains(library) {
                        faults.append("\(file.name):\(number): imports \(module)")
                    }
                }
                if module == "Shared", file.library != nil || file.role != nil {
                    faults.append("\(file.name):\(number): Shared is for executables")
                }
            }
        }
        #expect(faults == [])
    }

    @Test func rolesAndPureLibrariesUseTheLoop() throws {
        var faults: [String] = []
        for file in try Tree.swiftFiles() {
            guard file.role != nil || Self.pure.contains(file.library ?? "") else { continue }
            for (number, line) in file.code {
                for (call, instead) in Self.banned where line.uses(call) {
                    let place = file.path.split(separator: "/").suffix(2).joined(separator: "/")
                    if Self.providers.contains("\(place): \(call)") { continue }
                    faults.append("\(file.name):\(number): \(call) is banned: use \(instead)")
                }
            }
        }
        #expect(faults == [])
    }

    @Test func filesAreShortAndNarrow() throws {
        var faults: [String] = []
        for file in try Tree.swiftFiles() {
            if file.lines.count > 500 { faults.append("\(file.name): \(file.lines.count) lines") }
            if file.name.hasPrefix("Sources/"), file.name.hasSuffix("/Main.swift"),
                file.lines.count >= 80
            {
                faults.append("\(file.name): \(file.lines.count) lines, where all is wiring")
            }
            if file.lines.first != "// SPDX-License-Identifier: Apache-2.0" {
                faults.append("\(file.name): the first line must name the licence")
            }
            for (i, line) in file.lines.enumerated() {
                guard line.count > 100 else { continue }
                faults.append("\(file.name):\(i + 1): \(line.count) columns")
                if line.last == " " || line.last == "\t" || line.last == "\r" {
                    faults.append("\(file.name):\(i + 1): blanks at its end")
                }
                if line.contains("\t") { faults.append("\(file.name):\(i + 1): a tabulator") }
            }
        }
        #expect(faults == [])
    }

    @Test func nothingIsLeftForLater() throws {
        let marks = ["TO" + "DO", "FIX" + "ME", "XX" + "X", "HA" + "CK"]
        var faults: [String] = []
        for file in try Tree.swiftFiles() {
            for (i, line) in file.lines.enumerated() {
                let words = line.split { !$0.isLetter }
                for mark in marks where words.contains(Substring(mark)) {
                    faults.append("\(file.name):\(i + 1): \(mark)")
                }
            }
        }
        #expect(faults == [])
    }

    @Test func uncheckedSafetyIsExplained() throws {
        let escapes = ["@unchecked " + "Sendable", "nonisolated" + "(unsafe)"]
        var faults: [String] = []
        for file in try Tree.swiftFiles() where file.isSource {
            for (number, line) in file.code {
                guard escapes.contains(where: { line.contains($0) }) else { continue }
                // In the comment right above, or in the line itself.
                let above = file.lines[..<(number - 1)].reversed().prefix {
                    $0.drop { $0 == " " }.hasPrefix("//")
                }
                let near = [file.lines[number - 1]] + above
                if !near.contains(where: { $0.contains("// Safety: ") }) {
                    faults.append("\(file.name):\(number): needs a line that begins with Safety:")
                }
            }
        }
        #expect(faults == [])
    }
}
