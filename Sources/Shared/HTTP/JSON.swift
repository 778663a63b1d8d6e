// SPDX-License-Identifier: Apache-2.0

package import Primitives

/// Why a text is not JSON: what was expected, and at which byte.
package struct JSONError: Error, Sendable, Equatable, CustomStringConvertible {
    package let reason: String
    package let offset: Int

    package init(_ reason: String, at offset: Int) {
        self.reason = reason
        self.offset = offset
    }

    package var description: String { "\(reason) at byte \(offset)" }
}

/// Parses JSON (RFC 8259), strictly: no comments, no trailing commas, no bare control characters,
/// nothing behind the value. Text must be valid UTF-8, and an escaped surrogate must have its
/// partner: what cannot be stored exactly is refused, never altered.
package enum JSON {
    /// How deep arrays and objects may nest.
    package static let depthMax = 64
    /// How many values a document may hold. Above what any valid append needs (a batch of 1 MiB
    /// holds at most 350,000 headers of three values), and a bound on the memory of the tree.
    package static let valuesMax = 2_000_000

    package static func parse(
        _ bytes: Bytes, valuesMax: Int = JSON.valuesMax
    ) throws(JSONError) -> JSONValue {
        try bytes.withUnsafeBytes { (text: UnsafeRawBufferPointer) throws(JSONError) in
            var parser = JSONParser(text: text, valuesLeft: valuesMax)
            return try parser.document()
        }
    }
}

private struct JSONParser {
    let text: UnsafeRawBufferPointer
    var valuesLeft: Int
    var at = 0
    var depth = 0

    init(text: UnsafeRawBufferPointer, valuesLeft: Int) {
        self.text = text
        self.valuesLeft = valuesLeft
    }

    func fail(_ reason: String) -> JSONError { JSONError(reason, at: at) }

    var next: UInt8? { at < text.count ? text[at] : nil }

    mutating func skipSpace() {
        while at < text.count {
            switch text[at] {
            case 0x20, 0x09, 0x0A, 0x0D: at += 1
            default: return
            }
        }
    }

    mutating func document() throws(JSONError) -> JSONValue {
        skipSpace()
        let value = try value()
        skipSpace()
        guard at == text.count else { throw fail("expected the end") }
        return value
    }

    mutating func value() throws(JSONError) -> JSONValue {
        valuesLeft -= 1
        guard valuesLeft >= 0 else { throw fail("too many values") }
        guard let next else { throw fail("expected a value") }
        switch next {
        case UInt8(ascii: "\""): return .string(try string())
        case UInt8(ascii: "{"): return .object(try object())
        case UInt8(ascii: "["): return .array(try array())
        case UInt8(ascii: "t"): return try literal("true", .bool(true))
        case UInt8(ascii: "f"): return try literal("false", .bool(false))
        case UInt8(ascii: "n"): return try literal("null", .null)
        case UInt8(ascii: "-"), UInt8(ascii: "0")...UInt8(ascii: "9"): return try number()
        default: throw fail("expected a value")
        }
    }

    mutating func literal(
        _ word: StaticString, _ value: JSONValue
    ) throws(JSONError) -> JSONValue {
        let end = at + word.utf8CodeUnitCount
        guard end <= text.count else { throw fail("expected \(word)") }
        for i in 0..<word.utf8CodeUnitCount where text[at + i] != word.utf8Start[i] {
            throw fail("expected \(word)")
        }
        at = end
        return value
    }

    mutating func enter() throws(JSONError) {
        depth += 1
        guard depth <= JSON.depthMax else { throw fail("nested too deeply") }
        at += 1
        skipSpace()
    }

    mutating func object() throws(JSONError) -> JSONObject {
        try enter()
        defer { depth -= 1 }
        var object = JSONObject()
        if next == UInt8(ascii: "}") {
            at += 1
            return object
        }
        while true {
            guard next == UInt8(ascii: "\"") else { throw fail("expected a name") }
            let name = try string()
            skipSpace()
            guard next == UInt8(ascii: ":") else { throw fail("expected a colon") }
            at += 1
            skipSpace()
            object.append(name, try value())
            if try endOfItems(UInt8(ascii: "}")) { return object }
        }
    }

    mutating func array() throws(JSONError) -> [JSONValue] {
        try enter()
        defer { depth -= 1 }
        var items: [JSONValue] = []
        if next == UInt8(ascii: "]") {
            at += 1
            return items
        }
        while true {
            items.append(try value())
            if try endOfItems(UInt8(ascii: "]")) { return items }
        }
    }

    /// Behind an item: true past the closing byte, false past a comma.
    mutating func endOfItems(_ close: UInt8) throws(JSONError) -> Bool {
        skipSpace()
        if next == close {
            at += 1
            return true
        }
        guard next == UInt8(ascii: ",") else { throw fail("expected a comma or the end") }
        at += 1
        skipSpace()
        return false
    }
}

// MARK: Numbers

extension JSONParser {
    mutating func number() throws(JSONError) -> JSONValue {
        let start = at
        let isNegative = next == UInt8(ascii: "-")
        if isNegative { at += 1 }
        let digits = at
        skipDigits()
        guard at > digits else { throw fail("expected a digit") }
        guard text[digits] != UInt8(ascii: "0") || at == digits + 1 else {
            throw JSONError("a number begins with 0", at: digits)
        }
        var isInteger = true
        if next == UInt8(ascii: ".") {
            isInteger = false
            at += 1
            let fraction = at
            skipDigits()
            guard at > fraction else { throw fail("expected a digit") }
        }
        if next == UInt8(ascii: "e") || next == UInt8(ascii: "E") {
            isInteger = false
            at += 1
            if next == UInt8(ascii: "+") || next == UInt8(ascii: "-") { at += 1 }
            let exponent = at
            skipDigits()
            guard at > exponent else { throw fail("expected a digit") }
        }
        let literal = String(decoding: text[start..<at], as: UTF8.self)
        if isInteger && !isNegative, let value = UInt64(literal) { return .unsigned(value) }
        if isInteger && isNegative, let value = Int64(literal), value < 0 {
            return .negative(value)
        }
        guard let value = Double(literal), value.isFinite else {
            throw JSONError("a number is out of range", at: start)
        }
        return .double(value)
    }

    mutating func skipDigits() {
        while at < text.count, text[at] >= UInt8(ascii: "0"), text[at] <= UInt8(ascii: "9") {
            at += 1
        }
    }
}

// MARK: Strings

extension JSONParser {
    mutating func string() throws(JSONError) -> String {
        at += 1
        let start = at
        while at < text.count {
            let byte = text[at]
            if byte == UInt8(ascii: "\"") {
                guard let string = String(validating: text[start..<at], as: UTF8.self) else {
                    throw JSONError("text is not UTF-8", at: start)
                }
                at += 1
                return string
            }
            if byte == UInt8(ascii: "\\") { return try escapedString(from: start) }
            guard byte >= 0x20 else { throw fail("a bare control character") }
            at += 1
        }
        throw fail("a string does not end")
    }

    /// The rest of a string whose first escape was met; `start` is where the string begins.
    private mutating func escapedString(from start: Int) throws(JSONError) -> String {
        var decoded = Array(text[start..<at])
        while at < text.count {
            let byte = text[at]
            at += 1
            switch byte {
            case UInt8(ascii: "\""):
                guard let text = String(validating: decoded, as: UTF8.self) else {
                    throw JSONError("text is not UTF-8", at: start)
                }
                return text
            case UInt8(ascii: "\\"): try escape(into: &decoded)
            case 0x20...: decoded.append(byte)
            default: throw JSONError("a bare control character", at: at - 1)
            }
        }
        throw fail("a string does not end")
    }

    private mutating func escape(into decoded: inout [UInt8]) throws(JSONError) {
        guard let kind = next else { throw fail("a string does not end") }
        at += 1
        switch kind {
        case UInt8(ascii: "\""), UInt8(ascii: "\\"), UInt8(ascii: "/"): decoded.append(kind)
        case UInt8(ascii: "b"): decoded.append(0x08)
        case UInt8(ascii: "f"): decoded.append(0x0C)
        case UInt8(ascii: "n"): decoded.append(0x0A)
        case UInt8(ascii: "r"): decoded.append(0x0D)
        case UInt8(ascii: "t"): decoded.append(0x09)
        case UInt8(ascii: "u"): decoded.append(contentsOf: String(try unicodeEscape()).utf8)
        default: throw JSONError("an unknown escape", at: at - 1)
        }
    }

    private mutating func unicodeEscape() throws(JSONError) -> Unicode.Scalar {
        let start = at
        var code = try hexQuad()
        if (0xD800..<0xDC00).contains(code), next == UInt8(ascii: "\\"), at + 1 < text.count,
            text[at + 1] == UInt8(ascii: "u")
        {
            at += 2
            let low = try hexQuad()
            guard (0xDC00..<0xE000).contains(low) else {
                throw JSONError("a lone surrogate", at: start)
            }
            code = 0x10000 + ((code - 0xD800) << 10) + (low - 0xDC00)
        }
        guard let scalar = Unicode.Scalar(code) else {
            throw JSONError("a lone surrogate", at: start)
        }
        return scalar
    }

    private mutating func hexQuad() throws(JSONError) -> UInt32 {
        guard at + 4 <= text.count else { throw fail("a string does not end") }
        var code: UInt32 = 0
        for _ in 0..<4 {
            guard let digit = URI.hexDigit(text[at]) else { throw fail("expected a hex digit") }
            code = code << 4 | UInt32(digit)
            at += 1
        }
        return code
    }
}
