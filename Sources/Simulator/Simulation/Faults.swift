// SPDX-License-Identifier: Apache-2.0

package import Primitives

/// How often what goes wrong, in one simulation. 0 is never; n is once in n.
package struct Faults: Sendable {
    /// The request is refused, without effect.
    package var refusedOneIn: UInt64 = 200
    /// The effect happens; its reply is lost.
    package var lostReplyOneIn: UInt64 = 100
    /// The caller is told that it failed; the effect happens later.
    package var lateEffectOneIn: UInt64 = 400
    /// The whole request takes a hundred times as long.
    package var slowOneIn: UInt64 = 100
    /// Mean time between crashes of any process; 0 for none.
    package var crashNanoseconds: Nanoseconds = .seconds(4)

    package init() {}

    package static let none: Faults = {
        var faults = Faults()
        faults.refusedOneIn = 0
        faults.lostReplyOneIn = 0
        faults.lateEffectOneIn = 0
        faults.slowOneIn = 0
        faults.crashNanoseconds = 0
        return faults
    }()
}

/// A durable service outside of all processes: requests take time, may be refused, may lose their
/// reply, may take effect after the caller gave up. What it stores survives every crash.
final class SimService {
    private let scheduler: Scheduler
    private let loop: SimLoop
    private let latency: ClosedRange<Nanoseconds>
    /// May change while the simulation runs: a healed world has none.
    var faults: Faults

    init(
        _ name: String, scheduler: Scheduler, latency: ClosedRange<Nanoseconds>, faults: Faults
    ) {
        self.scheduler = scheduler
        loop = scheduler.makeLoop(name)
        self.latency = latency
        self.faults = faults
    }

    enum Fate { case refused, unknown }

    /// Performs `effect` on the service after a while, and answers after another while; or answers
    /// `failure` as the fates have it.
    func request<Value: Sendable, Failure: Error>(
        mayHaveEffect: Bool, failure: @escaping (Fate) -> Failure,
        _ effect: @escaping () async -> Result<Value, Failure>
    ) async throws(Failure) -> Value {
        let result = await withUnsafeContinuation {
            (waiter: UnsafeContinuation<LoopBound<Result<Value, Failure>>, Never>) in
            let there = delay()
            let back = delay()
            if chance(faults.refusedOneIn) {
                return answer(after: there + back, waiter, .failure(failure(.refused)))
            }
            let lost = chance(faults.lostReplyOneIn)
            if mayHaveEffect && chance(faults.lateEffectOneIn) {
                answer(after: there, waiter, .failure(failure(.unknown)))
                perform(after: there + scheduler.random.within(0...(.seconds(2))), effect) { _ in }
                return
            }
            perform(after: there, effect) { [self] result in
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
