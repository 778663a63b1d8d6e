// SPDX-License-Identifier: Apache-2.0

internal import HTTP
internal import Primitives
internal import Records

/// A client that brings streams into the world and out of it again, so that background tasks have
/// something to do. Whatever a stream of this name was before, a new one begins with nothing.
final class LifecycleClient {
    enum Way: String, CaseIterable {
        /// The stream is deleted, and made again once it is gone.
        case deleted
        /// The stream's basin is deleted, and made again.
        case deletedWithBasin
        /// All of the stream is trimmed, and it is to be deleted then.
        case emptied
        /// Records of the stream expire.
        case expiring
    }

    private let way: Way
    private let requests: SimRequests
    private let loop: SimLoop
    private let random: RandomSource
    private var generation = 0
    /// Appends that were given up: they may come in at any time, in a later stream even.
    private var unsure: Set<String> = []
    private var histories: [History] = []
    private var failures: [String] = []
    private(set) var isDone = false
    var stops = false

    /// Records of expiring streams.
    private static let ageSeconds: Int64 = 60

    init(_ way: Way, cell: SimCell) {
        self.way = way
        loop = cell.scheduler.makeLoop("lifecycle-\(way)")
        var requests = SimRequests(cell: cell, loop: loop)
        if way == .deletedWithBasin { requests.basin = "passing-basin" }
        self.requests = requests
        random = .seeded(cell.scheduler.random.next())
    }

    var violations: [String] { failures + histories.flatMap(\.violations) }

    func start() {
        loop.run { [self] in
            loop.spawn { [self] in
                while !stops { await live() }
                isDone = true
            }
        }
    }

    private func rest(_ range: ClosedRange<Nanoseconds>) async {
        await loop.sleep(random.within(range))
    }

    /// One stream's life.
    private func live() async {
        generation += 1
        let subject = Subject("passing-\(way.rawValue.lowercased())", .guarded)
        histories.append(subject.history)
        if way == .deletedWithBasin {
            guard await make("/v1/basins", #"{"basin":"\#(requests.basin)"}"#) else { return }
            if let listed = await requests.json("GET", "/v1/streams"), listed.status == 200,
                listed.body.lossyText.contains(subject.name)
            {
                failures.append("a new basin has the streams of its namesake")
            }
        }
        let config = Self.config(way)
        let wish = #"{"stream":"\#(subject.name)","config":\#(config)}"#
        guard await make("/v1/streams", wish) else { return }
        await checkTailIsZero(subject)
        if way == .expiring { return await grow(subject) }
        for number in 0..<(1 + random.below(6)) where !stops {
            _ = await append("\(way)/\(generation)/\(number)", to: subject)
            await rest(0...(.seconds(8)))
        }
        await read(subject)
        switch way {
        case .deleted: await delete("/v1/streams/\(subject.name)")
        case .deletedWithBasin: await delete("/v1/basins/\(requests.basin)")
        case .emptied: await empty(subject)
        case .expiring: break
        }
    }

    private func append(_ body: String, to subject: Subject) async -> Bool? {
        let isApplied = await requests.append([body], to: subject)
        if isApplied == nil { unsure.insert(body) }
        return isApplied
    }

    private static func config(_ way: Way) -> String {
        switch way {
        case .emptied: #"{"delete_on_empty":{"min_age_secs":20}}"#
        case .expiring: #"{"retention_policy":{"age":\#(ageSeconds)}}"#
        case .deleted, .deletedWithBasin: "{}"
        }
    }

    /// True once it was made anew; a namesake has to be gone first, and the reply may be lost.
    private func make(_ path: String, _ body: String) async -> Bool {
        while !stops {
            if await requests.json("POST", path, body)?.status == 201 { return true }
            // It may be there, from a request whose reply was lost: then it goes, to be sure that
            // what is there is new.
            if generation > 1 || random.oneIn(8) { await undo(path) }
            await rest(.seconds(1)...(.seconds(5)))
        }
        return false
    }

    private func undo(_ path: String) async {
        let name =
            path == "/v1/basins"
            ? requests.basin : "passing-\(way.rawValue.lowercased())"
        _ = await requests.json("DELETE", "\(path)/\(name)")
    }

    private func delete(_ path: String) async {
        while !stops {
            let status = await requests.json("DELETE", path)?.status
            if status == 202 || status == 404 { return }
            await rest(.milliseconds(100)...(.seconds(2)))
        }
    }

    private func checkTailIsZero(_ subject: Subject) async {
        let response = await requests.send("GET", subject.path + "/tail")
        guard let response, response.status == 200, let tail = response.number(behind: "seq_num")
        else { return }
        if tail != 0, unsure.isEmpty { failures.append("a new \(subject.name) begins at \(tail)") }
    }

    private func read(_ subject: Subject) async {
        let known = subject.history.knownTail
        guard let records = await requests.everything(subject) else { return }
        subject.history.readAll(records, known: known)
        for record in records
        where !record.body.hasPrefix("\(way)/\(generation)/")
            && !record.body.hasPrefix(History.trimPrefix) && !unsure.contains(record.body)
        {
            failures.append("\(subject.name) has '\(record.body)' in generation \(generation)")
        }
    }

    /// Trims everything, and waits until the stream is gone.
    private func empty(_ subject: Subject) async {
        while !stops {
            // The command is a record itself, and goes with what is before it.
            if await requests.trim(subject, below: .max) { break }
            await rest(.milliseconds(100)...(.seconds(2)))
        }
        while !stops {
            await rest(.seconds(5)...(.seconds(20)))
            let status = await requests.json("GET", "/v1/streams/\(subject.name)")?.status
            if status == 404 || status == 409 { return }
        }
    }

    // MARK: Expiry

    /// Appends for long, and reads: what is younger than the retention age is always there.
    private func grow(_ subject: Subject) async {
        var sent: [(at: Nanoseconds, seqNum: SeqNum)] = []
        var number = 0
        while !stops {
            number += 1
            let at = loop.now
            if await append("\(way)/\(generation)/\(number)", to: subject) == true {
                sent.append((at, subject.history.knownTail - 1))
            }
            if random.oneIn(4), let records = await requests.everything(subject) {
                let young = sent.first { $0.at > loop.now - .seconds(Self.ageSeconds) }
                subject.history.willTrim(below: young?.seqNum ?? subject.history.knownTail)
                if records.isEmpty, young != nil {
                    failures.append("\(subject.name) is empty, and was written to just now")
                }
                subject.history.read(records, from: 0)
            }
            await rest(.seconds(1)...(.seconds(12)))
        }
    }
}
