// SPDX-License-Identifier: Apache-2.0

internal import ObjectStorage
package import Primitives

/// What S3 answers in: elements and text, no more.
///
/// Strict: a document that is cut off, nests wrongly or deeper than 16, declares a document type or
/// uses an entity that XML does not predefine is an error. Attributes are skipped.
package struct XMLElement: Sendable {
    package let name: String
    package fileprivate(set) var children: [XMLElement] = []
    /// The element's own text, entities resolved.
    package fileprivate(set) var text = ""

    fileprivate init(name: String) { self.name = name }

    package static func parse(_ document: Bytes) throws(DecodeError) -> XMLElement {
        var parser = XMLParser(document.array)
        return try parser.parseDocument()
    }

    /// The first child of that name.
    package func first(_ name: String) -> XMLElement? { children.first { $0.name == name } }

    /// The text of the first child of that name.
    package func text(_ name: String) -> String? { first(name)?.text }
}

private struct XMLParser {
    private let bytes: [UInt8]
    private var at = 0
    private static let depthMax = 16

    init(_ bytes: [UInt8]) { self.bytes = bytes }

    mutating func parseDocument() throws(DecodeError) -> XMLElement {
        guard String(validating: bytes, as: UTF8.self) != nil else { throw bad("not UTF-8") }
        if starts(with: "\u{FEFF}") { at += 3 }
        try skipMisc()
        let root = try parseElement(depth: 1)
        try skipMisc()
        guard at == bytes.count else { throw bad("something behind the document") }
        return root
    }

    private mutating func parseElement(depth: Int) throws(DecodeError) -> XMLElement {
        guard depth <= Self.depthMax else { throw bad("elements nest too deep") }
        try expect("<")
        var element = XMLElement(name: try parseName())
        if try skipAttributes() { return element }
        var text: [UInt8] = []
        while true {
            guard at < bytes.count else { throw DecodeError(.truncated, at: at) }
            if starts(with: "</") {
                at += 2
                guard try parseName() == element.name else { throw bad("another element ends") }
                skipSpace()
                try expect(">")
                element.text = String(decoding: text, as: UTF8.self)
                return element
            } else if starts(with: "<!--") {
                try skip(beyond: "-->")
            } else if starts(with: "<![CDATA[") {
                let start = at + 9
                try skip(beyond: "]]>")
                text.append(contentsOf: bytes[start..<(at - 3)])
            } else if bytes[at] == UInt8(ascii: "<") {
                element.children.append(try parseElement(depth: depth + 1))
            } else if bytes[at] == UInt8(ascii: "&") {
                text.append(contentsOf: try parseEntity())
            } else {
                text.append(bytes[at])
                at += 1
            }
        }
    }

    /// True if the element is empty and ends here.
    private mutating func skipAttributes() throws(DecodeError) -> Bool {
        while true {
            skipSpace()
            guard at < bytes.count else { throw DecodeError(.truncated, at: at) }
            if starts(with: "/>") {
                at += 2
                return true
            }
            if starts(with: ">") {
                at += 1
                return false
            }
            _ = try parseName()
            skipSpace()
            try expect("=")
            skipSpace()
            guard starts(with: "\"") || starts(with: "'") else { throw bad("a value lacks quotes") }
            let quote = bytes[at]
            guard let end = bytes[(at + 1)...].firstIndex(of: quote) else {
                throw DecodeError(.truncated, at: at)
            }
            at = end + 1
        }
    }

    private mutating func parseName() throws(DecodeError) -> String {
        let start = at
        while at < bytes.count, Self.isNamePart(bytes[at]) { at += 1 }
        guard at > start else { throw bad("a name is missing") }
        return String(decoding: bytes[start..<at], as: UTF8.self)
    }

    private mutating func parseEntity() throws(DecodeError) -> [UInt8] {
        let start = at + 1
        guard let end = bytes[start...].prefix(12).firstIndex(of: UInt8(ascii: ";")) else {
            throw bad("an entity without an end")
        }
        let name = String(decoding: bytes[start..<end], as: UTF8.self)
        at = end + 1
        switch name {
        case "amp": return [UInt8(ascii: "&")]
        case "lt": return [UInt8(ascii: "<")]
        case "gt": return [UInt8(ascii: ">")]
        case "quot": return [UInt8(ascii: "\"")]
        case "apos": return [UInt8(ascii: "'")]
        default: break
        }
        let number =
            name.hasPrefix("#x")
            ? UInt32(name.dropFirst(2), radix: 16)
            : name.hasPrefix("#") ? UInt32(name.dropFirst()) : nil
        guard let scalar = number.flatMap(Unicode.Scalar.init) else {
            throw bad("the unknown entity \(name)")
        }
        return Array(String(Character(scalar)).utf8)
    }

    /// Skips spaces, comments and the declaration.
    private mutating func skipMisc() throws(DecodeError) {
        while true {
            skipSpace()
            if starts(with: "<?") {
                try skip(beyond: "?>")
            } else if starts(with: "<!--") {
                try skip(beyond: "-->")
            } else {
                return
            }
        }
    }

    private mutating func skip(beyond end: String) throws(DecodeError) {
        while at < bytes.count {
            if starts(with: end) {
                at += end.utf8.count
                return
            }
            at += 1
        }
        throw DecodeError(.truncated, at: at)
    }

    private mutating func skipSpace() {
        while at < bytes.count, [0x20, 0x09, 0x0A, 0x0D].contains(bytes[at]) { at += 1 }
    }

    private mutating func expect(_ text: String) throws(DecodeError) {
        guard starts(with: text) else {
            throw at >= bytes.count ? DecodeError(.truncated, at: at) : bad("\(text) is missing")
        }
        at += text.utf8.count
    }

    private func starts(with text: String) -> Bool { bytes[at...].starts(with: text.utf8) }

    private func bad(_ what: String) -> DecodeError { DecodeError(.malformed(what), at: at) }

    private static func isNamePart(_ byte: UInt8) -> Bool {
        PercentCoding.isUnreserved(byte) && byte != UInt8(ascii: "~") || byte == UInt8(ascii: ":")
            || byte >= 0x80
    }
}
