// SPDX-License-Identifier: Apache-2.0

internal import Foundation
internal import S2SClient

/// One process of the cell, as the kernel sees it.
struct CellProcess: Equatable {
    let id: Int
    /// `channel`, `frontend`, …
    let name: String
    /// Where its metrics are, as its command line or its environment say.
    let admin: String?

    static let postgresName = "postgres"
    private static let adminVariable = "MILLRACE_ADMIN_LISTEN="

    var label: String { admin.map { "\(name) \($0)" } ?? name }

    /// Cop and its children.
    static func cell(cop: Int) throws(ClientError) -> [CellProcess] {
        let entries: [String]
        do {
            entries = try FileManager.default.contentsOfDirectory(atPath: "/proc")
        } catch { throw ClientError("/proc: \(error)") }
        var found: [CellProcess] = []
        for id in entries.compactMap({ Int($0) }).sorted() {
            guard let stat = Stat(id), id == cop || stat.parent == cop else { continue }
            found.append(CellProcess(id: id, name: stat.name, admin: admin(of: id)))
        }
        guard found.contains(where: { $0.id == cop }) else {
            throw ClientError("there is no process \(cop)")
        }
        return found
    }

    /// The server of the cell's database and its workers, none without its first process.
    static func postgres(_ first: Int) throws(ClientError) -> [CellProcess] {
        guard first > 0 else { return [] }
        return try cell(cop: first).map {
            CellProcess(id: $0.id, name: postgresName, admin: nil)
        }
    }

    private static func admin(of id: Int) -> String? {
        let words = readFile("/proc/\(id)/cmdline").split(separator: "\0").map(String.init)
        if let option = words.firstIndex(of: "--admin-listen"), option + 1 < words.count {
            return words[option + 1]
        }
        return readFile("/proc/\(id)/environ").split(separator: "\0")
            .first { $0.hasPrefix(adminVariable) }
            .map { String($0.dropFirst(adminVariable.count)) }
    }

    /// User and system time of all its threads, in seconds.
    var cpuSeconds: Double { Stat(id).map(\.cpuSeconds) ?? 0 }

    var residentBytes: Int {
        for line in readFile("/proc/\(id)/status").split(separator: "\n")
        where line.hasPrefix("VmRSS:") {
            return (Int(line.split(separator: " ")[1]) ?? 0) << 10
        }
        return 0
    }

    var descriptors: Int {
        (try? FileManager.default.contentsOfDirectory(atPath: "/proc/\(id)/fd").count) ?? 0
    }

    /// `/proc/ID/stat`; none for a process that is gone.
    private struct Stat {
        let name: String
        let parent: Int
        let cpuSeconds: Double

        init?(_ id: Int) {
            let text = readFile("/proc/\(id)/stat")
            guard let open = text.firstIndex(of: "("), let close = text.lastIndex(of: ")") else {
                return nil
            }
            name = String(text[text.index(after: open)..<close])
            let fields = text[text.index(after: close)...].split(separator: " ")
            guard fields.count > 12, let parent = Int(fields[1]), let user = Double(fields[11]),
                let system = Double(fields[12])
            else { return nil }
            self.parent = parent
            cpuSeconds = (user + system) / 100
        }
    }
}

/// The text of a file, empty where it cannot be read.
func readFile(_ path: String) -> String {
    guard let data = FileManager.default.contents(atPath: path) else { return "" }
    return String(decoding: data, as: UTF8.self)
}

/// Processor time since some moment.
struct Usage {
    private let cell: [CellProcess]
    private let start: Int64
    private let before: [Double]
    private let ownBefore: Double
    private let machineBefore: Double

    init(_ cell: [CellProcess]) {
        self.cell = cell
        start = monotonicNanoseconds
        before = cell.map(\.cpuSeconds)
        ownBefore = Self.own
        machineBefore = Self.machine
    }

    struct Spent {
        var wallSeconds: Double
        /// By name: the cell's processes, `bench`, and `other` for everything else on the machine.
        var cpuSeconds: [String: Double]
    }

    /// What was spent since this value was made.
    func spent() -> Spent {
        var seconds: [String: Double] = [:]
        for (process, before) in zip(cell, before) {
            seconds[process.name, default: 0] += process.cpuSeconds - before
        }
        seconds["bench"] = Self.own - ownBefore
        let known = seconds.values.reduce(0, +)
        seconds["other"] = max(0, Self.machine - machineBefore - known)
        return Spent(
            wallSeconds: Double(monotonicNanoseconds - start) / 1e9, cpuSeconds: seconds)
    }

    private static var own: Double {
        var usage = rusage()
        getrusage(__rusage_who_t(RUSAGE_SELF.rawValue), &usage)
        func seconds(_ time: timeval) -> Double { Double(time.tv_sec) + Double(time.tv_usec) / 1e6 }
        return seconds(usage.ru_utime) + seconds(usage.ru_stime)
    }

    /// Busy time of all processors.
    private static var machine: Double {
        let line = readFile("/proc/stat").split(separator: "\n").first ?? ""
        let fields = line.split(separator: " ").dropFirst().compactMap { Double($0) }
        guard fields.count > 7 else { return 0 }
        return (fields[0] + fields[1] + fields[2] + fields[5] + fields[6]) / 100
    }
}
