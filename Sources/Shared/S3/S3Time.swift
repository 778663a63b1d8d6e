// SPDX-License-Identifier: Apache-2.0

/// The three ways in which S3 writes a time. Values are milliseconds since the Unix epoch.
package enum S3Time {
    /// `20130524T000000Z`, as signatures have it.
    package static func timestamp(_ milliseconds: UInt64) -> String {
        let seconds = milliseconds / 1_000
        let (year, month, day) = civil(day: Int(seconds / 86_400))
        let time = Int(seconds % 86_400)
        return padded(year, 4) + padded(month, 2) + padded(day, 2) + "T"
            + padded(time / 3_600, 2) + padded(time / 60 % 60, 2) + padded(time % 60, 2) + "Z"
    }

    /// `2009-10-12T17:50:30.000Z`, as listings have it; nil for anything else.
    package static func parse(iso8601 text: String) -> UInt64? {
        let bytes = Array(text.utf8)
        guard bytes.count >= 20, bytes.last == UInt8(ascii: "Z"), bytes[10] == UInt8(ascii: "T"),
            let year = number(bytes[0..<4]), let month = number(bytes[5..<7]),
            let day = number(bytes[8..<10]), let time = timeOfDay(bytes[11..<19])
        else { return nil }
        var milliseconds = 0
        if bytes[19] == UInt8(ascii: ".") {
            var scale = 100
            for digit in bytes[20..<(bytes.count - 1)] {
                guard let value = number([digit]) else { return nil }
                milliseconds += value * scale
                scale /= 10
            }
        } else if bytes.count != 20 {
            return nil
        }
        return combine(year, month, day, time, milliseconds)
    }

    /// `Wed, 12 Oct 2009 17:50:30 GMT`, as headers have it; nil for anything else.
    package static func parse(http text: String) -> UInt64? {
        let bytes = Array(text.utf8)
        guard bytes.count == 29, text.hasSuffix(" GMT"), let day = number(bytes[5..<7]),
            let month = months.firstIndex(of: String(decoding: bytes[8..<11], as: UTF8.self)),
            let year = number(bytes[12..<16]), let time = timeOfDay(bytes[17..<25])
        else { return nil }
        return combine(year, month + 1, day, time, 0)
    }

    private static let months = [
        "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
    ]

    /// Seconds of `17:50:30`.
    private static func timeOfDay(_ text: ArraySlice<UInt8>) -> Int? {
        let at = text.startIndex
        guard let hour = number(text[at..<at + 2]), let minute = number(text[at + 3..<at + 5]),
            let second = number(text[at + 6..<at + 8]), hour < 24, minute < 60, second <= 60
        else { return nil }
        return hour * 3_600 + minute * 60 + second
    }

    private static func number(_ digits: ArraySlice<UInt8>) -> Int? {
        var value = 0
        for digit in digits {
            guard digit >= UInt8(ascii: "0"), digit <= UInt8(ascii: "9") else { return nil }
            value = value * 10 + Int(digit - UInt8(ascii: "0"))
        }
        return value
    }

    private static func combine(
        _ year: Int, _ month: Int, _ day: Int, _ time: Int, _ milliseconds: Int
    ) -> UInt64? {
        guard year >= 1970, (1...12).contains(month), (1...31).contains(day) else { return nil }
        let days = Self.days(year, month, day)
        return UInt64((days * 86_400 + time) * 1_000 + milliseconds)
    }

    /// Days since 1970-01-01. The year is taken to begin in March, so that its leap day is its
    /// last; 719,468 days lie between the years 0 and 1970 in that count.
    private static func days(_ year: Int, _ month: Int, _ day: Int) -> Int {
        let year = month <= 2 ? year - 1 : year
        let dayOfYear = (153 * (month + (month > 2 ? -3 : 9)) + 2) / 5 + day - 1
        return year * 365 + year / 4 - year / 100 + year / 400 + dayOfYear - 719_468
    }

    private static func civil(day: Int) -> (year: Int, month: Int, day: Int) {
        let day = day + 719_468
        let era = day / 146_097
        let dayOfEra = day % 146_097
        let yearOfEra =
            (dayOfEra - dayOfEra / 1_460 + dayOfEra / 36_524 - dayOfEra / 146_096) / 365
        let dayOfYear = dayOfEra - (365 * yearOfEra + yearOfEra / 4 - yearOfEra / 100)
        let month = (5 * dayOfYear + 2) / 153
        let isNextYear = month >= 10
        return (
            era * 400 + yearOfEra + (isNextYear ? 1 : 0), isNextYear ? month - 9 : month + 3,
            dayOfYear - (153 * month + 2) / 5 + 1
        )
    }

    private static func padded(_ value: Int, _ width: Int) -> String {
        let digits = String(value)
        return String(repeating: "0", count: max(width - digits.count, 0)) + digits
    }
}
