// SPDX-License-Identifier: Apache-2.0

package import ChannelRole
internal import HTTP
package import Primitives
package import Records

/// One simulated life of a cell under load and faults, from a seed.
package struct Run {
    package var seed: UInt64
    package var frontends = 2
    package var channels = 3
    package var clients = 5
    package var streams = 3
    /// How long clients and faults go on, in virtual time; then the world heals and is checked.
    package var duration: Nanoseconds = .seconds(30)
    package var faults = Faults()
    package var keepsTrace = false
    /// For mutants: what to change in every channel.
    package var adjustChannel: (inout ChannelLimits) -> Void = { _ in }

    package init(seed: UInt64) { self.seed = seed }

    package struct Outcome {
        package var seed: UInt64
        package var traceHash: UInt64
        package var trace: [String]
        package var violations: [String]
        package var acknowledged: Int
        package var crashes: Int
        package var steps: Int
    }

    /// Runs it. Everything must also get well again: streams that cannot be read once the world
    /// healed are violations.
    package func callAsFunction() -> Outcome {
        let trace = Trace(keepsLines: keepsTrace)
        let scheduler = Scheduler(seed: seed, trace: trace)
        let cell = SimCell(
            scheduler: scheduler, frontends: frontends, channels: channels, faults: faults,
            adjustChannel: adjustChannel)
        let names = (0..<streams).map { "stream-\($0)" }
        let histories = Dictionary(
            uniqueKeysWithValues: names.map { ($0, History(stream: $0)) })
        let driver = Driver(cell, names, histories, clientCount: clients, run: self)
        cell.start()
        driver.start()
        let finished = scheduler.run(until: duration + .seconds(300), steps: 20_000_000) {
            driver.isDone
        }
        var violations = driver.failures + names.flatMap { histories[$0]?.violations ?? [] }
        if !finished { violations.append("the cell did not get well again") }
        return Outcome(
            seed: seed, traceHash: trace.hash, trace: trace.lines, violations: violations,
            acknowledged: names.reduce(0) { $0 + (histories[$1]?.acknowledged ?? 0) },
            crashes: cell.crashes, steps: scheduler.stepCount)
    }
}

/// Sets a cell up, lets clients and crashes loose on it, heals it, and reads everything back.
private final class Driver {
    private let cell: SimCell
    private let loop: SimLoop
    private let streams: [String]
    private let histories: [String: History]
    private let run: Run
    private var clients: [WorkloadClient] = []
    private(set) var isDone = false
    private(set) var failures: [String] = []

    init(
        _ cell: SimCell, _ streams: [String], _ histories: [String: History], clientCount: Int,
        run: Run
    ) {
        self.cell = cell
        self.streams = streams
        self.histories = histories
        self.run = run
        loop = cell.scheduler.makeLoop("driver")
        for n in 0..<clientCount {
            clients.append(WorkloadClient("client-\(n)", cell: cell, histories: histories))
        }
    }

    func start() {
        loop.run { [self] in
            loop.spawn { [self] in
                await setUp()
                for client in clients { client.start() }
                let end = loop.now + run.duration
                while loop.now < end {
                    let mean = run.faults.crashNanoseconds
                    let pause = mean > 0 ? cell.scheduler.random.within(0...(2 * mean)) : end
                    await loop.sleep(min(pause, end - loop.now))
                    if loop.now < end { cell.crashSomething() }
                }
                cell.heal()
                for client in clients { client.stops = true }
                while !clients.allSatisfy(\.isDone) { await loop.sleep(.milliseconds(100)) }
                for stream in streams { await check(stream) }
                isDone = true
            }
        }
    }

    private func setUp() async {
        await untilDone("POST", "/v1/basins", #"{"basin":"simulated"}"#)
        for stream in streams {
            await untilDone("POST", "/v1/streams", #"{"stream":"\#(stream)"}"#)
        }
    }

    private func untilDone(_ method: String, _ path: String, _ body: String) async {
        let headers = [
            (name: "s2-basin", value: WorkloadClient.basin),
            (name: "content-type", value: "application/json"),
        ]
        while true {
            let response = await cell.request(
                from: loop, method, path, headers: headers, body: Bytes(utf8: body))
            // 409: an earlier try did it, and its reply was lost.
            if let status = response?.status, status == 201 || status == 409 { return }
            await loop.sleep(.milliseconds(50))
        }
    }

    /// Reads a stream from its beginning; it must be possible within two minutes.
    private func check(_ stream: String) async {
        let headers = [
            (name: "s2-basin", value: WorkloadClient.basin),
            (name: "accept", value: "application/protobuf"),
        ]
        let deadline = loop.now + .seconds(120)
        var records: [(seqNum: SeqNum, body: String)] = []
        var last = "nothing"
        while loop.now < deadline {
            let response = await cell.request(
                from: loop, "GET", "/v1/streams/\(stream)/records",
                query: "seq_num=\(records.count)", headers: headers, body: Bytes())
            switch response?.status {
            case 200: records += WorkloadClient.records(response?.body ?? Bytes())
            case 416:
                histories[stream]?.finish(records)
                return
            default:
                last = response.map { "\($0.status) \($0.body.lossyText)" } ?? "no response"
                await loop.sleep(.milliseconds(100))
            }
        }
        failures.append("\(stream) cannot be read: \(last)")
    }
}
