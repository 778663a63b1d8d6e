// SPDX-License-Identifier: Apache-2.0

import Foundation
import Glibc
import Synchronization

/// A program that runs beside the test.
final class Program {
    private let process = Process()
    private let input = Pipe()
    private let output = Output()

    /// Starts it. With `log`, what it says on both streams is appended there; else `text` has it.
    init(_ path: String, _ arguments: [String], _ environment: [String: String], log: URL?) throws {
        process.executableURL = URL(filePath: path)
        process.arguments = arguments
        process.environment = environment
        process.standardInput = input
        if let log {
            if !FileManager.default.fileExists(atPath: log.path) {
                _ = FileManager.default.createFile(atPath: log.path, contents: nil)
            }
            let file = try FileHandle(forWritingTo: log)
            try file.seekToEnd()
            process.standardOutput = file
            process.standardError = file
        } else {
            let pipe = Pipe()
            process.standardOutput = pipe
            process.standardError = pipe
            let handle = pipe.fileHandleForReading
            Thread.detachNewThread { [output] in
                while true {
                    let bytes = handle.availableData
                    if bytes.isEmpty { break }
                    output.bytes.withLock { $0.append(bytes) }
                }
                // Foundation keeps a process that has ended, and its pipes, for long.
                handle.closeFile()
                output.isComplete.withLock { $0 = true }
            }
        }
        try process.run()
    }

    deinit {
        if process.isRunning { kill(process.processIdentifier, SIGKILL) }
        input.fileHandleForWriting.closeFile()
    }

    var isRunning: Bool { process.isRunning }
    var id: pid_t { process.processIdentifier }
    /// Or the signal that ended it.
    var exitCode: Int32 { process.terminationStatus }
    var wasKilled: Bool { process.terminationReason == .uncaughtSignal }
    var text: String { output.bytes.withLock { String(decoding: $0, as: UTF8.self) } }

    func signal(_ number: Int32) { kill(process.processIdentifier, number) }

    /// Gives it a line on its standard input.
    func tell(_ line: String) throws {
        try input.fileHandleForWriting.write(contentsOf: Data((line + "\n").utf8))
    }

    /// Waits until it has said `text`.
    func waitFor(_ text: String) throws {
        do {
            try waitUntil("the script says \(text)") {
                if self.text.contains(text) { return true }
                guard isRunning else { throw CellError("it ended") }
                return false
            }
        } catch {
            throw CellError("\(error):\n\(self.text)")
        }
    }

    /// Waits for its end, which must be a success; returns what it said.
    @discardableResult
    func finish(within seconds: Int) throws -> String {
        try end(within: seconds)
        guard exitCode == 0 else { throw CellError("it exited with \(exitCode):\n\(text)") }
        return text
    }

    /// Waits for its end, however it ends.
    func end(within seconds: Int) throws {
        let end = ContinuousClock.now + .seconds(seconds)
        while isRunning || !output.isComplete.withLock({ $0 }) {
            guard ContinuousClock.now < end else {
                signal(SIGKILL)
                let state = isRunning ? "running" : "its output is open"
                throw CellError("it did not end within \(seconds) s (\(state)):\n\(text)")
            }
            usleep(20_000)
        }
    }

    /// Runs a program of the search path, or at a path, to its end.
    @discardableResult
    static func run(
        _ name: String, _ arguments: [String], _ environment: [String: String]
    ) throws -> String {
        let own = ProcessInfo.processInfo.environment.merging(environment) { $1 }
        let program =
            name.contains("/")
            ? try Program(name, arguments, own, log: nil)
            : try Program("/usr/bin/env", [name] + arguments, own, log: nil)
        return try program.finish(within: 60)
    }

    static func succeeds(_ name: String, _ arguments: [String]) throws -> Bool {
        let program = try Program(
            "/usr/bin/env", [name] + arguments, ProcessInfo.processInfo.environment, log: nil)
        try waitUntil("\(name) ended") { !program.isRunning }
        return program.exitCode == 0
    }

    private final class Output: Sendable {
        let bytes = Mutex(Data())
        let isComplete = Mutex(false)
    }
}

/// A process of this host, whoever started it.
struct RunningProcess {
    let id: pid_t
    /// Its command line.
    let words: [String]

    /// The last part of its program's path.
    var name: String { words.first?.split(separator: "/").last.map { String($0) } ?? "" }

    /// Those whose command line or first environment holds `text`; those that have ended and were
    /// not waited for have neither.
    static func all(mentioning text: String) -> [RunningProcess] {
        func read(_ file: String) -> [String] {
            let bytes = FileManager.default.contents(atPath: file) ?? Data()
            return bytes.split(separator: 0).map { String(decoding: $0, as: UTF8.self) }
        }
        let entries = (try? FileManager.default.contentsOfDirectory(atPath: "/proc")) ?? []
        return entries.compactMap { entry in
            guard let id = pid_t(entry), id != getpid() else { return nil }
            let words = read("/proc/\(id)/cmdline")
            guard (words + read("/proc/\(id)/environ")).contains(where: { $0.contains(text) })
            else { return nil }
            return RunningProcess(id: id, words: words)
        }
    }
}
