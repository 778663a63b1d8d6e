// SPDX-License-Identifier: Apache-2.0

import Testing

/// That `make fuzz` reaches every decoder.
@Suite struct CoverageTests {
    /// `make fuzz` runs the tests whose name says fuzz: those that it is to scale must say it.
    @Test func whatIsScaledAsFuzzIsCalledFuzz() throws {
        var faults: [String] = []
        for file in try Tree.swiftFiles() where file.path.hasPrefix("Tests/") {
            if file.path.hasPrefix("Tests/TestSupport/") { continue }
            var function = ""
            for (number, line) in file.code {
                if let match = line.firstMatch(of: #/\bfunc (\w+)/#) { function = String(match.1) }
                if line.contains("fuzzIterations"), !function.hasPrefix("fuzz") {
                    faults.append("\(file.name):\(number): \(function) is not called fuzz…")
                }
            }
        }
        #expect(faults == [])
    }

    @Test func everyMessageIsFuzzed() throws {
        let files = try Tree.swiftFiles()
        let fuzzed = files.filter { file in
            file.path.hasPrefix("Tests/") && file.code.contains { $0.line.contains("try fuzz(") }
        }
        var faults: [String] = []
        for file in files where file.isSource {
            for (number, line) in file.code {
                guard let match = line.firstMatch(of: #/(\w+): (?:\w+, )*ByteCodable\b/#),
                    line.contains("struct ") || line.contains("enum ")
                        || line.hasPrefix("extension ")
                else { continue }
                let use = match.1 + (line.contains("enum ") ? "." : "(")
                if !fuzzed.contains(where: { $0.code.contains { $0.line.contains(use) } }) {
                    faults.append("\(file.name):\(number): no test fuzzes \(match.1)")
                }
            }
        }
        #expect(faults == [])
    }
}
