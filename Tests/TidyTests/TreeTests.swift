// SPDX-License-Identifier: Apache-2.0

import Testing

/// The rules are only as good as what reads the files.
@Suite struct TreeTests {
    private let file = SourceFile(
        path: "Sources/Channel/Role/Example.swift",
        text: """
            // SPDX-License-Identifier: Apache-2.0
            package import Records  // and why
            @preconcurrency internal import struct NIOCore.ByteBuffer
            // import Foundation
            let a = "import Dispatch; Task {"
            let b = Task { 1 }
            let c = LoopTask { 2 }  // Task {
            """)

    @Test func placesFiles() {
        #expect(file.role == "Channel")
        #expect(file.library == nil)
        #expect(file.executable == nil)
        let main = SourceFile(path: "Sources/Cop/Main.swift", text: "")
        #expect(main.executable == "Cop")
        #expect(main.role == nil)
        let library = SourceFile(path: "Sources/Shared/Log/Chunk.swift", text: "")
        #expect(library.library == "Log")
        #expect(SourceFile(path: "Sources/Shared/Shared.swift", text: "").library == nil)
        #expect(!SourceFile(path: "Tests/LogTests/A.swift", text: "").isSource)
    }

    @Test func findsImports() {
        #expect(file.imports.map(\.module) == ["Records", "NIOCore"])
        #expect(file.imports.map(\.number) == [2, 3])
    }

    @Test func findsCalls() {
        let uses = file.code.filter { $0.line.uses("Task {") }.map(\.number)
        #expect(uses == [6])
        #expect("x.random(in: y)".uses(".random("))
        #expect("_print(x)".uses("print(") == false)
        #expect("loop.print(x)".uses("print("))
        #expect("LoopTask { Task { } }".uses("Task {"))
    }

    @Test func skipsTexts() {
        let file = SourceFile(
            path: "Tests/A.swift", text: "let a = \"\"\"\n    Task {\n    \"\"\"\nTask {}")
        #expect(file.code.filter { $0.line.uses("Task {") }.map(\.number) == [4])
        let quoted = SourceFile(path: "Tests/A.swift", text: #"let a = "\" // Task {"; b()"#)
        #expect(quoted.code.first?.line == #"let a = ""; b()"#)
    }
}
