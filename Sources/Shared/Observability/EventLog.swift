// SPDX-License-Identifier: Apache-2.0

internal import Logging
internal import Primitives

/// A process's structured log: named events with fields. Control events only; nothing per record.
///
/// A value that a role is given: production writes JSON lines through swift-log, the simulator
/// writes its trace.
package struct EventLog: Sendable {
    package enum Level: Int, Sendable, Comparable, CaseIterable {
        case debug, info, notice, warning, error

        package static func < (a: Level, b: Level) -> Bool { a.rawValue < b.rawValue }

        package init?(_ name: String) {
            guard let level = Level.allCases.first(where: { "\($0)" == name }) else { return nil }
            self = level
        }
    }
    package typealias Fields = [(name: String, value: String)]
    package typealias Sink = @Sendable (Level, _ event: String, Fields) -> Void

    package let level: Level
    private let sink: Sink

    package init(level: Level, sink: @escaping Sink) {
        self.level = level
        self.sink = sink
    }

    /// Says nothing.
    package static let silent = EventLog(level: .error) { _, _, _ in }

    package func log(_ level: Level, _ event: String, _ fields: @autoclosure () -> Fields) {
        if level >= self.level { sink(level, event, fields()) }
    }

    package func debug(_ event: String, _ fields: @autoclosure () -> Fields = []) {
        log(.debug, event, fields())
    }
    package func info(_ event: String, _ fields: @autoclosure () -> Fields = []) {
        log(.info, event, fields())
    }
    package func notice(_ event: String, _ fields: @autoclosure () -> Fields = []) {
        log(.notice, event, fields())
    }
    package func warning(_ event: String, _ fields: @autoclosure () -> Fields = []) {
        log(.warning, event, fields())
    }
    package func error(_ event: String, _ fields: @autoclosure () -> Fields = []) {
        log(.error, event, fields())
    }
}
