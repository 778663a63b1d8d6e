// SPDX-License-Identifier: Apache-2.0

internal import CSupport
internal import Glibc
internal import Logging
internal import Primitives

extension EventLog {
    /// One JSON object per line on stderr, by way of swift-log, so that what the packages log
    /// looks the same. Call once per process.
    package static func jsonLines(role: String, level: Level) -> EventLog {
        LoggingSystem.bootstrap { _ in JSONLineHandler(role: role, logLevel: level.logging) }
        let logger = Logger(label: role)
        return EventLog(level: level) { level, event, fields in
            logger.log(
                level: level.logging, "\(event)",
                metadata: Logger.Metadata(
                    fields.map { ($0.name, .string($0.value)) }, uniquingKeysWith: { $1 }))
        }
    }
}

extension EventLog.Level {
    fileprivate var logging: Logger.Level {
        switch self {
        case .debug: .debug
        case .info: .info
        case .notice: .notice
        case .warning: .warning
        case .error: .error
        }
    }
}

private struct JSONLineHandler: LogHandler {
    let role: String
    var logLevel: Logger.Level
    var metadata: Logger.Metadata = [:]

    init(role: String, logLevel: Logger.Level) {
        self.role = role
        self.logLevel = logLevel
    }

    subscript(metadataKey key: String) -> Logger.Metadata.Value? {
        get { metadata[key] }
        set { metadata[key] = newValue }
    }

    func log(event: LogEvent) {
        var line = "{\"time\":\(millrace_wall_milliseconds()),\"level\":\"\(event.level)\""
        line += ",\"role\":"
        line.appendJSON(role)
        line += ",\"event\":"
        line.appendJSON(event.message.description)
        let fields = metadata.merging(event.metadata ?? [:]) { $1 }
        for (name, value) in fields.sorted(by: { $0.key < $1.key }) {
            line += ","
            line.appendJSON(name)
            line += ":"
            line.appendJSON("\(value)")
        }
        line += "}\n"
        // One write a line, so that lines of several processes do not mix.
        line.withUTF8 { _ = write(STDERR_FILENO, $0.baseAddress, $0.count) }
    }
}

extension String {
    /// Appends `text` as a JSON string.
    fileprivate mutating func appendJSON(_ text: String) {
        self += "\""
        for scalar in text.unicodeScalars {
            switch scalar {
            case "\"": self += "\\\""
            case "\\": self += "\\\\"
            case "\n": self += "\\n"
            case "\u{0}"..<" ":
                self += scalar.value < 16 ? "\\u000" : "\\u00"
                self += String(scalar.value, radix: 16)
            default: unicodeScalars.append(scalar)
            }
        }
        self += "\""
    }
}
