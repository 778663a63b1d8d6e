// SPDX-License-Identifier: Apache-2.0

/// A percent-encoded text that does not decode to UTF-8.
package struct InvalidPercentEncoding: Error, Sendable, Equatable {
    package init() {}
}

package enum URI {
    /// The segments of a raw path, still encoded: `/v1/streams/a%2Fb` has three, `/v1/` has two,
    /// the last one empty. Splitting comes before decoding, so that a name may hold a slash.
    /// Nil for what does not begin with a slash.
    package static func segments(of path: String) -> [Substring]? {
        // By bytes: a slash and a combining mark are one character, but two things here.
        guard path.utf8.first == UInt8(ascii: "/") else { return nil }
        return path.utf8.dropFirst()
            .split(separator: UInt8(ascii: "/"), omittingEmptySubsequences: false)
            .map { Substring($0) }
    }

    /// A path's segment, decoded. Lenient: a `%` without two hexadecimal digits stands for itself,
    /// and so does `+`.
    package static func decode(segment: some StringProtocol) throws(InvalidPercentEncoding)
        -> String
    {
        try decode(segment, plusIsSpace: false)
    }

    static func decode(
        _ text: some StringProtocol, plusIsSpace: Bool
    ) throws(InvalidPercentEncoding) -> String {
        let source = Array(text.utf8)
        var decoded: [UInt8] = []
        decoded.reserveCapacity(source.count)
        var at = 0
        while at < source.count {
            let byte = source[at]
            if byte == UInt8(ascii: "%"), at + 2 < source.count,
                let high = hexDigit(source[at + 1]), let low = hexDigit(source[at + 2])
            {
                decoded.append(high << 4 | low)
                at += 3
                continue
            }
            decoded.append(plusIsSpace && byte == UInt8(ascii: "+") ? UInt8(ascii: " ") : byte)
            at += 1
        }
        guard let text = String(validating: decoded, as: UTF8.self) else {
            throw InvalidPercentEncoding()
        }
        return text
    }

    static func hexDigit(_ byte: UInt8) -> UInt8? {
        switch byte {
        case UInt8(ascii: "0")...UInt8(ascii: "9"): byte - UInt8(ascii: "0")
        case UInt8(ascii: "a")...UInt8(ascii: "f"): byte - UInt8(ascii: "a") + 10
        case UInt8(ascii: "A")...UInt8(ascii: "F"): byte - UInt8(ascii: "A") + 10
        default: nil
        }
    }
}

/// A raw query, `application/x-www-form-urlencoded`. Where a key stands several times, the last
/// one counts; a key without `=` has the empty value. Only the keys that somebody asks for are
/// decoded and can be wrong.
package struct Query: Sendable {
    private let pairs: [(name: String, value: Substring)]

    package init(_ raw: String) {
        pairs = raw.utf8.split(separator: UInt8(ascii: "&")).compactMap { pair in
            let equals = pair.firstIndex(of: UInt8(ascii: "=")) ?? pair.endIndex
            // A key that does not decode is nobody's key.
            guard case .success(let name) = Self.decoded(Substring(pair[..<equals])) else {
                return nil
            }
            return (name, Substring(pair[equals...].dropFirst()))
        }
    }

    /// The decoded value of `name`; nil where it is absent.
    package func value(_ name: String) throws(InvalidPercentEncoding) -> String? {
        guard let pair = pairs.last(where: { $0.name == name }) else { return nil }
        return try URI.decode(pair.value, plusIsSpace: true)
    }

    private static func decoded(_ text: Substring) -> Result<String, InvalidPercentEncoding> {
        Result { () throws(InvalidPercentEncoding) in try URI.decode(text, plusIsSpace: true) }
    }
}
