// SPDX-License-Identifier: Apache-2.0

import Foundation

/// The project's own Swift files, as they are on disk.
enum Tree {
    static func swiftFiles(_ here: String = #filePath) throws -> [SourceFile] {
        let root = URL(filePath: here).deletingLastPathComponent().deletingLastPathComponent()
            .deletingLastPathComponent()
        var files: [SourceFile] = []
        for folder in ["Sources", "Tests", "Benchmarks"] {
            let base = root.appending(path: folder).resolvingSymlinksInPath()
            guard let walk = FileManager.default.enumerator(atPath: base.path) else { continue }
            for case let path as String in walk {
                // A package of its own keeps what it builds beside its sources.
                if path.split(separator: "/").contains(".build") { continue }
                if !path.hasSuffix(".swift") || path.hasSuffix("Package.swift") { continue }
                let text = try String(contentsOf: base.appending(path: path), encoding: .utf8)
                files.append(SourceFile(path: "\(folder)/\(path)", text: text))
            }
        }
        return files.sorted { $0.path < $1.path }
    }
}

struct SourceFile {
    /// From the project's root.
    let path: String
    let lines: [String]
    /// The lines that hold code, with their numbers, without comments and the text of literals.
    let code: [(number: Int, line: String)]

    init(path: String, text: String) {
        self.path = path
        var lines = text.split(separator: "\n", omittingEmptySubsequences: false).map(String.init)
        if lines.last == "" { lines.removeLast() }
        self.lines = lines
        var isInText = false
        code = lines.enumerated().compactMap { i, line in
            // Texts of several lines begin and end with three quotation marks.
            let marks = line.components(separatedBy: "\"\"\"").count - 1
            defer { if marks % 2 == 1 { isInText.toggle() } }
            if isInText { return nil }
            let bare = line.withoutLiteralsAndComments
            return bare.allSatisfy(\.isWhitespace) ? nil : (i + 1, bare)
        }
    }

    var name: String { path }
    private var parts: [Substring] { path.split(separator: "/") }

    var isSource: Bool { parts.first == "Sources" }

    /// The library of `Sources/Shared` that the file belongs to.
    var library: String? {
        let parts = parts
        return parts.count > 3 && parts[0] == "Sources" && parts[1] == "Shared"
            ? String(parts[2]) : nil
    }

    /// The role whose library the file belongs to.
    var role: String? {
        let parts = parts
        return parts.count > 3 && parts[0] == "Sources" && parts[2] == "Role"
            && TidyTests.roles.contains(String(parts[1])) ? String(parts[1]) : nil
    }

    /// The role whose executable the file belongs to.
    var executable: String? {
        let parts = parts
        return role == nil && parts.count > 2 && parts[0] == "Sources"
            && TidyTests.roles.contains(String(parts[1])) ? String(parts[1]) : nil
    }

    /// The modules it imports, with line numbers.
    var imports: [(number: Int, module: String)] {
        code.compactMap { number, line in
            var words = line.split(separator: " ")
            while let first = words.first,
                first.hasPrefix("@")
                    || ["package", "internal", "public", "private", "fileprivate"].contains(first)
            { words.removeFirst() }
            guard words.first == "import", words.count >= 2 else { return nil }
            // `import struct M.T` names a declaration.
            let kinds: Set<Substring> = [
                "struct", "class", "enum", "protocol", "func", "var", "let", "typealias",
            ]
            let target = kinds.contains(words[1]) && words.count > 2 ? words[2] : words[1]
            return (number, String(target.split(separator: ".")[0]))
        }
    }
}

extension String {
    /// The line without what stands between quotation marks and behind `//`.
    fileprivate var withoutLiteralsAndComments: String {
        var out = ""
        var isQuoted = false
        var isEscaped = false
        var previous: Character?
        for character in self {
            if isQuoted {
                if isEscaped {
                    isEscaped = false
                } else if character == "\\" {
                    isEscaped = true
                } else if character == "\"" {
                    isQuoted = false
                    out.append(character)
                }
                continue
            }
            if character == "/" && previous == "/" {
                out.removeLast()
                return out
            }
            if character == "\"" { isQuoted = true }
            out.append(character)
            previous = character
        }
        return out
    }

    /// Whether the line makes this call: the name does not merely end another one.
    func uses(_ call: String) -> Bool {
        var rest = self[...]
        while let found = rest.range(of: call) {
            let before = rest[..<found.lowerBound].last ?? self[..<found.lowerBound].last
            let isWhole =
                call.first == "." || call.first == "@"
                || !(before.map { $0.isLetter || $0.isNumber || $0 == "_" } ?? false)
            if isWhole { return true }
            rest = self[found.upperBound...]
        }
        return false
    }
}
