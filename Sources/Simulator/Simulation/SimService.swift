// SPDX-License-Identifier: Apache-2.0

internal import Primitives

/// A durable service outside of all processes: requests take time, may be refused, may lose their
/// reply, may take effect after the caller gave up. What it stores survives every crash.
final class SimService {
    private let scheduler: Scheduler
    private let loop: SimLoop
    private let latency: ClosedRange<Nanoseconds>
    /// May change while the simulation runs: a healed world has none.
    var faults: Faults
    private var awayUntil: Nanoseconds = 0
    /// What of it a process that is cut off still reaches.
    enum Reach {
        case nothing
        case oneIn(UInt64)
        /// Every other key, whatever is asked of it: as where a part of the store is away.
        case everyOtherKey
        case allBut(_ key: String)
    }

    /// An effect of some process's request has happened, and its reply is not on the way yet.
    var onEffect: (_ origin: SimLoop?, _ key: String?) -> Void = { _, _ in }

    private var cutOff: [(process: SimLoop, reach: Reach, until: Nanoseconds)] = []

    init(
        _ name: String, scheduler: Scheduler, latency: ClosedRange<Nanoseconds>, faults: Faults
    ) {
        self.scheduler = scheduler
        loop = scheduler.makeLoop(name)
        self.latency = latency
        self.faults = faults
    }

    /// Under which key flushes are asked of the metadata.
    static let flushKey = "flush"

    enum Fate { case refused, unknown }

    /// It answers nobody for a while. What was on its way to it still happens.
    func goAway(for duration: Nanoseconds) { awayUntil = scheduler.now + duration }

    /// One process hardly reaches it for a while.
    func cutOff(_ process: SimLoop, for duration: Nanoseconds, _ reach: Reach) {
        cutOff.append((process, reach, scheduler.now + duration))
    }

    func heal() {
        faults = .none
        awayUntil = 0
        cutOff = []
    }

    private func isReachable(from origin: SimLoop?, key: String?) -> Bool {
        let now = scheduler.now
        if now < awayUntil { return false }
        cutOff.removeAll { $0.until <= now }
        guard let cut = cutOff.first(where: { $0.process === origin }) else { return true }
        switch cut.reach {
        case .nothing: return false
        case .oneIn(let n): return scheduler.random.oneIn(n)
        case .allBut(let lost): return key != lost
        case .everyOtherKey: return key?.utf8.last.map { $0 % 2 == 0 } ?? false
        }
    }

    /// Performs `effect` on the service after a while, and answers after another while; or answers
    /// `failure` as the fates have it.
    func request<Value: Sendable, Failure: Error>(
        from origin: SimLoop?, key: String? = nil, mayHaveEffect: Bool,
        failure: @escaping (Fate) -> Failure,
        _ effect: @escaping () async -> Result<Value, Failure>
    ) async throws(Failure) -> Value {
        let result = await withUnsafeContinuation {
            (waiter: UnsafeContinuation<LoopBound<Result<Value, Failure>>, Never>) in
            let there = delay()
            let back = delay()
            guard isReachable(from: origin, key: key) else {
                let patience = scheduler.random.within(.milliseconds(1)...(.milliseconds(500)))
                return answer(after: patience, waiter, .failure(failure(.unknown)))
            }
            if chance(faults.refusedOneIn) {
                return answer(after: there + back, waiter, .failure(failure(.refused)))
            }
            let lost =
                chance(faults.lostReplyOneIn)
                || (key == Self.flushKey && faults.lostFlushRepliesPercent > 0
                    && scheduler.random.below(100) < faults.lostFlushRepliesPercent)
            if mayHaveEffect && chance(faults.lateEffectOneIn) {
                answer(after: there, waiter, .failure(failure(.unknown)))
                perform(after: there + scheduler.random.within(0...(.seconds(2))), effect) { _ in }
                return
            }
            perform(after: there, effect) { [self] result in
                if mayHaveEffect { onEffect(origin, key) }
                answer(after: back, waiter, lost ? .failure(failure(.unknown)) : result)
            }
        }
        return try result.value.get()
    }

    private func perform<Value: Sendable, Failure: Error>(
        after delay: Nanoseconds, _ effect: @escaping () async -> Result<Value, Failure>,
        _ done: @escaping (Result<Value, Failure>) -> Void
    ) {
        let bound = LoopBound((effect, done))
        _ = loop.scheduleUnchecked(delay) { [loop] in
            loop.spawn { bound.value.1(await bound.value.0()) }
        }
    }

    private func answer<Value: Sendable, Failure: Error>(
        after delay: Nanoseconds,
        _ waiter: UnsafeContinuation<LoopBound<Result<Value, Failure>>, Never>,
        _ result: Result<Value, Failure>
    ) {
        let bound = LoopBound(result)
        _ = loop.scheduleUnchecked(delay) { waiter.resume(returning: bound) }
    }

    private func delay() -> Nanoseconds {
        let one = scheduler.random.within(latency)
        return chance(faults.slowOneIn) ? one * 100 : one
    }

    private func chance(_ n: UInt64) -> Bool { n > 0 && scheduler.random.oneIn(n) }
}
