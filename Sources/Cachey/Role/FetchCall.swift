// SPDX-License-Identifier: Apache-2.0

internal import Observability
internal import Primitives
internal import RPC

/// A range on its way to another process: its bytes as messages, untouched, then the reply.
final class FetchCall: PageSink {
    private let call: any Call
    private let world: CacheyWorld
    private let metrics: CacheyMetrics
    private let begunAt: Nanoseconds
    private var session: FetchSession?
    private var isOver = false

    init(_ call: any Call, world: CacheyWorld, metrics: CacheyMetrics) {
        self.call = call
        self.world = world
        self.metrics = metrics
        begunAt = world.loop.now
    }

    /// Serves the call to its end.
    func serve(_ payload: Bytes, deadline: Nanoseconds?, _ sessions: FetchSessions) {
        let request: FetchRequest
        do throws(DecodeError) {
            request = try FetchRequest(payload)
        } catch {
            metrics.over(.rpc, .refused)
            return call.end(.malformed, Bytes(utf8: error.description))
        }
        call.onMessage = { [call] in call.consumed($0.count) }
        call.onEnd = { [self] _, _ in leave() }
        call.onSendable = { [self] in session?.resume() }
        sessions.begin(
            RangeRequest(
                buckets: request.buckets, object: request.object, range: request.range,
                deadline: deadline), self
        ) { session = $0 }
    }

    private func leave() {
        guard !isOver else { return }
        isOver = true
        metrics.over(.rpc, .abandoned)
        session?.cancel()
        session = nil
    }

    var canTake: Bool { call.unsentBytes == 0 }

    func take(_ piece: Bytes, _ info: PieceInfo) {
        if info.isFirst { metrics.firstPageSeconds.record(world.loop.now - begunAt) }
        metrics.sent(piece.count, at: world.loop.now)
        var rest = piece
        while !rest.isEmpty {
            let part = rest.prefix(RPCLimits.messageBytesMax)
            call.send(part)
            rest = rest.dropFirst(part.count)
        }
    }

    func finish(objectSize: Int) {
        end(.done, .ok, FetchReply(objectSize: UInt64(objectSize)).encoded())
    }

    func fail(_ failure: FetchFailure, objectSize: Int?) {
        let status: Status =
            switch failure {
            case .notFound: .objectNotFound
            case .rangeNotSatisfiable: .rangeNotSatisfiable
            case .overloaded: .overloaded
            case .timedOut: .deadlineExceeded
            case .sizesDiffer, .unknownBucket, .storeFailed: .unavailable
            }
        end(CacheyMetrics.Outcome(failure), status, Bytes(utf8: failure.description))
    }

    private func end(_ outcome: CacheyMetrics.Outcome, _ status: Status, _ payload: Bytes) {
        guard !isOver else { return }
        isOver = true
        metrics.over(.rpc, outcome)
        session = nil
        call.end(status, payload)
    }
}
