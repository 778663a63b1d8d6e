// SPDX-License-Identifier: Apache-2.0

internal import Foundation
internal import S2SClient

/// A mixed load for a long while, during which no process may grow.
///
/// The first third of the time is for caches to fill. In the rest, the median of each process'
/// memory and descriptors over the last third must not exceed that of the middle third by more
/// than the bounds below, and no process may have been replaced.
struct Soak {
    let target: Target
    let minutes: Double
    private var samples: [Int: [Sample]] = [:]

    private struct Sample {
        var residentBytes: Int
        var descriptors: Int
    }

    private static let sampleNanoseconds: Int64 = 10_000_000_000
    private static let residentGrowthMax = 0.05
    private static let residentSlackBytes = 8 << 20
    private static let descriptorSlack = 8
    private static let writers = 8
    private static let batchesPerSecond: Int64 = 20

    init(_ target: Target, minutes: Double) {
        self.target = target
        self.minutes = minutes
    }

    mutating func run() throws(ClientError) {
        let cell = try target.processes
        let connection = try target.connect()
        var load = try Load(target, connection, writers: Self.writers)
        let start = monotonicNanoseconds
        let end = start + Int64(minutes * 60e9)
        var sampleDue = start + Self.sampleNanoseconds
        var batchDue = start
        var probeDue = start
        while monotonicNanoseconds < end {
            let now = monotonicNanoseconds
            if now >= batchDue {
                load.append()
                batchDue = max(batchDue + 1_000_000_000 / Self.batchesPerSecond, now - 100_000_000)
            }
            if now >= probeDue {
                load.probe()
                probeDue += 500_000_000
            }
            if now >= sampleDue {
                try sample(cell)
                sampleDue += Self.sampleNanoseconds
            }
            target.poller.turn(until: min(batchDue, min(sampleDue, end)))
            try load.check()
        }
        say("\(load.summary)")
        try judge(cell)
    }

    private mutating func sample(_ cell: [CellProcess]) throws(ClientError) {
        guard try target.processes == cell else { throw ClientError("a process was replaced") }
        var line = ""
        for process in cell {
            let sample = Sample(
                residentBytes: process.residentBytes, descriptors: process.descriptors)
            samples[process.id, default: []].append(sample)
            line += "\(process.name) \(sample.residentBytes >> 20) MiB \(sample.descriptors) fds  "
        }
        print(line)
        fflush(nil)
    }

    private func judge(_ cell: [CellProcess]) throws(ClientError) {
        var faults: [String] = []
        for process in cell {
            let all = samples[process.id] ?? []
            guard all.count >= 6 else { throw ClientError("the soak was too short to judge") }
            let third = all.count / 3
            let middle = all[third..<2 * third]
            let last = all[(2 * third)...]
            func median(_ values: [Int]) -> Int { values.sorted()[values.count / 2] }
            let before = median(middle.map(\.residentBytes))
            let after = median(last.map(\.residentBytes))
            let slack = max(
                Self.residentSlackBytes, Int(Double(before) * Self.residentGrowthMax))
            if after > before + slack {
                faults.append("\(process.name): memory \(before >> 10) → \(after >> 10) KiB")
            }
            let open = median(middle.map(\.descriptors))
            let openLater = median(last.map(\.descriptors))
            if openLater > open + Self.descriptorSlack {
                faults.append("\(process.name): descriptors \(open) → \(openLater)")
            }
        }
        guard faults.isEmpty else { throw ClientError(faults.joined(separator: "; ")) }
        say("memory and descriptors stayed flat")
    }
}

/// Writers, one follower each, and now and then a stream that is made, used, read and deleted.
private struct Load {
    private let target: Target
    private let connection: Connection
    private let writers: [Writer]
    private let followers: [ReadSession]
    private let ledger = Ledger()
    private var probes = 0

    /// What callbacks count.
    private final class Ledger {
        var delivered: [UInt64]
        var isBroken = false
        var replies: [Int: Reply] = [:]
        var failure: String?
        var scratch = 0
        var batches = 0

        init() { delivered = [] }
    }

    private static let records = 10
    private static let inFlightMax = 100

    init(_ target: Target, _ connection: Connection, writers count: Int) throws(ClientError) {
        self.target = target
        self.connection = connection
        var writers: [Writer] = []
        var followers: [ReadSession] = []
        ledger.delivered = [UInt64](repeating: 0, count: count)
        for i in 0..<count {
            let stream = "soak-\(i)"
            try target.makeStream(stream)
            let writer = Writer(
                target, connection, stream: stream, tag: UInt64(i + 1), records: Self.records,
                window: 0)
            let reader = ReadSession(
                connection, basin: target.basin, stream: stream, query: "seq_num=0")
            reader.onRecord = { [ledger] record in
                if record.seqNum != ledger.delivered[i]
                    || !Content.matches(record, tag: writer.tag)
                {
                    ledger.isBroken = true
                }
                ledger.delivered[i] += 1
            }
            writers.append(writer)
            followers.append(reader)
        }
        self.writers = writers
        self.followers = followers
    }

    /// One batch to each stream, unless the cell is behind.
    mutating func append() {
        for writer in writers where writer.inFlight < Self.inFlightMax {
            writer.sendOne()
            ledger.batches += 1
        }
    }

    /// A short life of a stream: append, read, delete, each a request of its own.
    mutating func probe() {
        guard ledger.replies.isEmpty else { return }
        let number = probes
        probes += 1
        let path = "/v1/streams/scratch-\(number)"
        let body = Array(#"{"records":[{"body":"a"},{"body":"b"}]}"#.utf8)
        send(number, "POST", path + "/records", body) { [self] in
            send(number, "GET", path + "/records?seq_num=0", nil) { [self] in
                send(number, "DELETE", path, nil) { [ledger] in ledger.scratch += 1 }
            }
        }
    }

    private func send(
        _ number: Int, _ method: String, _ path: String, _ body: [UInt8]?,
        then: @escaping () -> Void
    ) {
        let reply = Reply(connection, method, path, basin: target.basin, body: body)
        ledger.replies[number] = reply
        reply.onEnd = { [ledger] in
            guard let reply = ledger.replies.removeValue(forKey: number) else { return }
            guard (200..<300).contains(reply.status) else {
                ledger.failure = "\(method) \(path): \(reply.status) \(reply.text)"
                return
            }
            then()
        }
    }

    func check() throws(ClientError) {
        if let failure = connection.failure { throw failure }
        if let failure = ledger.failure { throw ClientError(failure) }
        if ledger.isBroken { throw ClientError("a follower saw what was not appended") }
        for writer in writers { if let error = writer.error { throw error } }
        for follower in followers { if let error = follower.failure { throw error } }
    }

    var summary: String {
        let records = ledger.delivered.reduce(0, +)
        return "\(ledger.batches) batches, \(records) records delivered, \(ledger.scratch) streams"
            + " made and deleted"
    }
}
