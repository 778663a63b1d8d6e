// SPDX-License-Identifier: Apache-2.0

internal import Primitives

/// When a read at the tail has waited long enough, and when its client must hear something.
///
/// Both times move with every delivered batch, which is cheap: a timer that fires too early sets
/// itself again. Heartbeats move the second time only, never the first.
final class ReadTimers {
    /// The wait is over, and nothing was delivered since it began.
    var onWaitOver: (() -> Void)?
    /// There was silence for long.
    var onSilence: (() -> Void)?
    private let world: FrontendWorld
    private let silence: ClosedRange<Nanoseconds>
    private let wait: Nanoseconds?
    private var waitEnd: Nanoseconds?
    private var hasBegunWait = false
    private var silenceEnd: Nanoseconds = 0
    private var waitTimer: Timer?
    private var silenceTimer: Timer?

    init(world: FrontendWorld, silence: ClosedRange<Nanoseconds>, waitSeconds: UInt32?) {
        self.world = world
        self.silence = silence
        wait = waitSeconds.map { .seconds(Int64($0)) }
    }

    /// A batch was delivered.
    func delivered() {
        if let wait {
            waitEnd = world.loop.now + wait
            // The wait may have run out before, on a reader that was still owed something.
            if hasBegunWait { armWait() }
        }
        heard()
    }

    /// The client was told something.
    func heard() { silenceEnd = world.loop.now + world.random.within(silence) }

    /// The tail is reached: the wait begins, unless it did before. False if it is over already.
    func beginWait() -> Bool {
        guard let wait else { return true }
        let now = world.loop.now
        let end = waitEnd ?? now + wait
        waitEnd = end
        if end <= now { return false }
        hasBegunWait = true
        armWait()
        return true
    }

    private func armWait() {
        guard waitTimer == nil, let waitEnd else { return }
        waitTimer = world.loop.after(waitEnd - world.loop.now) { [weak self] in
            guard let self else { return }
            self.waitTimer = nil
            if self.isWaitOver { self.onWaitOver?() } else { self.armWait() }
        }
    }

    private var isWaitOver: Bool { waitEnd.map { $0 <= world.loop.now } ?? false }

    func beginSilence() {
        heard()
        armSilence()
    }

    private func armSilence() {
        guard silenceTimer == nil else { return }
        silenceTimer = world.loop.after(silenceEnd - world.loop.now) { [weak self] in
            guard let self else { return }
            self.silenceTimer = nil
            if self.silenceEnd <= self.world.loop.now {
                self.onSilence?()
                self.heard()
            }
            if !self.isStopped { self.armSilence() }
        }
    }

    private var isStopped = false

    /// Off the tail: nothing is heard until `beginSilence`.
    func endSilence() {
        silenceTimer?.cancel()
        silenceTimer = nil
    }

    func stop() {
        isStopped = true
        waitTimer?.cancel()
        endSilence()
        onWaitOver = nil
        onSilence = nil
    }
}
