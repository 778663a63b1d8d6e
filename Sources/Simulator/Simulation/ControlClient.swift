// SPDX-License-Identifier: Apache-2.0

internal import HTTP
internal import Primitives
internal import Records

/// A client that changes streams: once a change is confirmed, every append that begins later obeys.
final class ControlClient {
    private let requests: SimRequests
    private let loop: SimLoop
    private let random: RandomSource
    private var count = 0
    private var generation = 0
    private(set) var violations: [String] = []
    private(set) var isDone = false
    var stops = false

    init(_ cell: SimCell) {
        loop = cell.scheduler.makeLoop("control")
        requests = SimRequests(cell: cell, loop: loop)
        random = .seeded(cell.scheduler.random.next())
    }

    func start() {
        loop.run { [self] in
            loop.spawn { [self] in
                while !stops {
                    count += 1
                    await random.oneIn(3) ? delete() : reconfigure()
                    await loop.sleep(random.within(0...(.seconds(1))))
                }
                isDone = true
            }
        }
    }

    private func path(_ stream: String) -> String { "/v1/streams/\(stream)" }

    /// The stream takes records without timestamps, or it does not.
    private func reconfigure() async {
        let stream = "configured-\(generation)"
        guard await make(stream) else { return }
        let requires = random.oneIn(2)
        let mode = requires ? "client-require" : "arrival"
        // What runs into the change may meet either.
        if random.oneIn(2) {
            loop.spawn { [self] in _ = await append(stream) }
        }
        let change = await requests.json(
            "PATCH", path(stream), #"{"timestamping":{"mode":"\#(mode)"}}"#)
        guard change?.status == 200 else {
            // It may take effect at any time from now on: nothing is sure of this stream any more.
            generation += 1
            return
        }
        guard let status = await append(stream) else { return }
        if requires && status == 200 {
            violations.append("\(stream): a record without timestamp came in behind the change")
        }
        if !requires && status == 422 {
            violations.append("\(stream): a record without timestamp was refused behind the change")
        }
    }

    /// A deleted stream takes no records.
    private func delete() async {
        let stream = "doomed-\(count)"
        guard await make(stream) else { return }
        for _ in 0..<random.below(4) { loop.spawn { [self] in _ = await append(stream) } }
        await loop.sleep(random.within(0...(.milliseconds(50))))
        guard await requests.json("DELETE", path(stream))?.status == 202 else { return }
        for _ in 0..<2 where await append(stream) == 200 {
            violations.append("\(stream): a record came in behind the deletion")
        }
    }

    private func make(_ stream: String) async -> Bool {
        let made = await requests.json("POST", "/v1/streams", #"{"stream":"\#(stream)"}"#)
        return made?.status == 201 || made?.status == 409
    }

    private func append(_ stream: String) async -> Int? {
        var input = ByteWriter()
        input.writeAppendInput([AppendRecord(body: Bytes(utf8: "x"))])
        return await requests.send("POST", path(stream) + "/records", body: input.finish())?.status
    }
}
