// SPDX-License-Identifier: Apache-2.0

/// Times for people: RFC 3339, in UTC, to the millisecond.
enum CivilTime {
    private static let millisecondsPerDay: UInt64 = 86_400_000

    /// `milliseconds` since the Unix epoch. The same number is the same text, always.
    static func text(milliseconds: UInt64) -> String {
        let (year, month, day) = date(daysSinceEpoch: milliseconds / millisecondsPerDay)
        let rest = milliseconds % millisecondsPerDay
        let date = "\(padded(year, 4))-\(padded(month, 2))-\(padded(day, 2))"
        let hours = padded(rest / 3_600_000, 2)
        let minutes = padded(rest / 60_000 % 60, 2)
        let seconds = padded(rest / 1_000 % 60, 2)
        return "\(date)T\(hours):\(minutes):\(seconds).\(padded(rest % 1_000, 3))Z"
    }

    /// The Gregorian date, counted in eras of 400 years and years that begin in March, so that the
    /// leap day comes last. Source: H. Hinnant, "chrono-compatible low-level date algorithms".
    private static func date(
        daysSinceEpoch: UInt64
    ) -> (year: UInt64, month: UInt64, day: UInt64) {
        let days = daysSinceEpoch + 719_468  // from 0000-03-01
        let era = days / 146_097
        let dayOfEra = days % 146_097
        let leapDays = dayOfEra / 1_460 - dayOfEra / 36_524 + dayOfEra / 146_096
        let yearOfEra = (dayOfEra - leapDays) / 365
        let dayOfYear = dayOfEra - (365 * yearOfEra + yearOfEra / 4 - yearOfEra / 100)
        let marchMonth = (5 * dayOfYear + 2) / 153
        let day = dayOfYear - (153 * marchMonth + 2) / 5 + 1
        let month = marchMonth < 10 ? marchMonth + 3 : marchMonth - 9
        return (era * 400 + yearOfEra + (month <= 2 ? 1 : 0), month, day)
    }

    private static func padded(_ number: UInt64, _ width: Int) -> String {
        let digits = String(number)
        return String(repeating: "0", count: max(0, width - digits.count)) + digits
    }
}
