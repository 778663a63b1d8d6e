// SPDX-License-Identifier: Apache-2.0

/// The rules for what clients may name things. Each function answers what is wrong, as a sentence
/// for the client, or nil.
package enum Names {
    /// 8 to 48 letters, digits and hyphens, with a letter or digit at both ends.
    package static func problem(basin name: String) -> String? {
        let length = name.utf8.count
        guard Limits.basinNameBytes.contains(length) else {
            return "a basin name must be 8 to 48 bytes long, not \(length)"
        }
        if let problem = problem(inBasinAlphabet: name, "basin name") { return problem }
        guard name.utf8.first != hyphen, name.utf8.last != hyphen else {
            return "a basin name must begin and end with a letter or digit"
        }
        return nil
    }

    /// A prefix or a `start_after` of a list of basins: it may be empty and end with a hyphen.
    package static func problem(basinPrefix text: String) -> String? {
        let length = text.utf8.count
        guard length <= Limits.basinNameBytes.upperBound else {
            return "a basin prefix must be at most 48 bytes long, not \(length)"
        }
        if let problem = problem(inBasinAlphabet: text, "basin prefix") { return problem }
        guard text.utf8.first != hyphen else {
            return "a basin prefix must begin with a letter or digit"
        }
        return nil
    }

    /// 1 to 512 bytes of anything but NUL, and neither `.` nor `..`.
    package static func problem(stream name: String) -> String? {
        problem(path: name, "stream name", bytesMax: Limits.streamNameBytesMax)
    }

    /// A prefix or a `start_after` of a list of streams.
    package static func problem(streamPrefix text: String) -> String? {
        problem(prefix: text, "stream prefix", bytesMax: Limits.streamNameBytesMax)
    }

    /// 1 to 96 bytes of anything but NUL, and neither `.` nor `..`.
    package static func problem(accessTokenID id: String) -> String? {
        problem(path: id, "access token id", bytesMax: Limits.accessTokenIDBytesMax)
    }

    /// A prefix or a `start_after` of a list of access tokens.
    package static func problem(accessTokenIDPrefix text: String) -> String? {
        problem(prefix: text, "access token id prefix", bytesMax: Limits.accessTokenIDBytesMax)
    }

    /// 1 to 64 letters, digits, colons, dots and hyphens.
    package static func problem(location: String) -> String? {
        let length = location.utf8.count
        guard (1...Limits.locationBytesMax).contains(length) else {
            return "a location must be 1 to 64 characters long, not \(length)"
        }
        let isPlain = location.utf8.allSatisfy { byte in
            isLowercaseOrDigit(byte) || (UInt8(ascii: "A")...UInt8(ascii: "Z")).contains(byte)
                || byte == UInt8(ascii: ":") || byte == UInt8(ascii: ".") || byte == hyphen
        }
        return isPlain ? nil : "a location may only contain letters, digits, ':', '.' and '-'"
    }

    /// At most 36 bytes of anything but NUL.
    package static func problem(requestToken token: String) -> String? {
        let length = token.utf8.count
        guard length <= Limits.requestTokenBytesMax else {
            return "a request token must be at most 36 bytes long, not \(length)"
        }
        guard !token.utf8.contains(0) else { return "a request token must not contain a NUL byte" }
        return nil
    }

    /// At most 36 bytes.
    package static func problem(fencingToken token: String) -> String? {
        let length = token.utf8.count
        guard length <= Limits.fencingTokenBytesMax else {
            return "a fencing token must be at most 36 bytes long, not \(length)"
        }
        return nil
    }

    private static let hyphen = UInt8(ascii: "-")

    private static func isLowercaseOrDigit(_ byte: UInt8) -> Bool {
        (UInt8(ascii: "a")...UInt8(ascii: "z")).contains(byte)
            || (UInt8(ascii: "0")...UInt8(ascii: "9")).contains(byte)
    }

    private static func problem(inBasinAlphabet text: String, _ what: String) -> String? {
        text.utf8.allSatisfy { isLowercaseOrDigit($0) || $0 == hyphen }
            ? nil : "a \(what) may only contain lowercase letters, digits and hyphens"
    }

    private static func problem(path name: String, _ what: String, bytesMax: Int) -> String? {
        guard !name.isEmpty else { return "the \(what) must not be empty" }
        if let problem = problem(prefix: name, what, bytesMax: bytesMax) { return problem }
        guard name != ".", name != ".." else { return "the \(what) must not be \"\(name)\"" }
        return nil
    }

    private static func problem(prefix text: String, _ what: String, bytesMax: Int) -> String? {
        let length = text.utf8.count
        guard length <= bytesMax else {
            return "the \(what) must be at most \(bytesMax) bytes long, not \(length)"
        }
        guard !text.utf8.contains(0) else { return "the \(what) must not contain a NUL byte" }
        return nil
    }
}
