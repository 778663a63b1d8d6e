// SPDX-License-Identifier: Apache-2.0

internal import Primitives

/// The bytes of inputs that have begun to come on append sessions and are not whole, in order of
/// their beginning.
///
/// They are nobody's batch yet, so that no budget of batches counts them, and a client may leave
/// them with us for as long as it likes. So an input has a time in which it must be whole. Once all
/// of them together have reached the limit, only the one that began first is read on, and has to be
/// whole soon, or else is dropped with other old ones; the others wait for room. What sessions were
/// sent before they could stop comes on top; at twice the limit it is refused.
final class BegunFrames {
    private let loop: any Loop
    private let bytesMax: Int
    private(set) var bytes = 0
    private var first: Frame?
    private var last: Frame?
    private var timer: Timer?
    /// Since when the first one is read on alone.
    private var aloneSince: Nanoseconds?

    /// How long an input may take to come.
    static let waitNanoseconds = BodyReader.waitNanoseconds
    /// How long the first one may take while the others wait for it.
    static let aloneNanoseconds: Nanoseconds = .milliseconds(500)
    private static let tickNanoseconds: Nanoseconds = .milliseconds(250)

    init(loop: any Loop, bytesMax: Int) {
        self.loop = loop
        self.bytesMax = bytesMax
    }

    /// The input of one session that is on its way.
    final class Frame {
        private let all: BegunFrames
        fileprivate private(set) var bytes = 0
        fileprivate var since: Nanoseconds = 0
        fileprivate var next: Frame?
        fileprivate var previous: Frame?
        fileprivate var isHeldBack = false
        /// There may be room again: called once after `mayGoOn` was false.
        var onRoom: () -> Void = {}
        /// It took too long, and is to be dropped.
        var onLate: () -> Void = {}

        init(_ all: BegunFrames) { self.all = all }

        /// So much has come of it; 0 if there is none on its way. `isNew` if it is not the one that
        /// was told of before.
        func came(_ count: Int, isNew: Bool) {
            let wasListed = bytes > 0
            let stays = wasListed && count > 0 && !isNew
            if wasListed, !stays { all.remove(self) }
            all.bytes += count - bytes
            bytes = count
            if count > 0, !stays { all.append(self) }
            if wasListed, !stays { all.madeRoom() }
        }

        /// Whether it is to be dropped at once: there is no room for any of it.
        var isTooMuch: Bool { bytes > 0 && all.bytes > 2 * all.bytesMax && all.first !== self }

        /// Whether more of it is to be read now; if not, `onRoom` will be called.
        var mayGoOn: Bool {
            isHeldBack = bytes > 0 && all.bytes >= all.bytesMax && all.first !== self
            return !isHeldBack
        }
    }

    private func append(_ frame: Frame) {
        frame.since = loop.now
        frame.previous = last
        if let last { last.next = frame } else { first = frame }
        last = frame
        if timer == nil { tickLater() }
    }

    private func remove(_ frame: Frame) {
        if let previous = frame.previous { previous.next = frame.next } else { first = frame.next }
        if let next = frame.next { next.previous = frame.previous } else { last = frame.previous }
        if frame.previous == nil { aloneSince = nil }
        frame.next = nil
        frame.previous = nil
    }

    /// The first one may always go on, and all may while there is room.
    private func madeRoom() {
        var frame = first
        while let one = frame, bytes < bytesMax || one === first {
            frame = one.next
            guard one.isHeldBack else { continue }
            one.isHeldBack = false
            one.onRoom()
        }
    }

    /// The first one was not whole in time: with it go those that began long ago, as far as needed.
    private func makeRoom(_ now: Nanoseconds) {
        first?.onLate()
        while let frame = first, bytes > bytesMax / 4 * 3,
            now - frame.since >= 2 * Self.aloneNanoseconds
        { frame.onLate() }
    }

    private func tickLater() {
        timer = loop.after(Self.tickNanoseconds) { [weak self] in self?.tick() }
    }

    private func tick() {
        timer = nil
        let now = loop.now
        aloneSince = bytes >= bytesMax ? aloneSince ?? now : nil
        if let aloneSince, now - aloneSince >= Self.aloneNanoseconds { makeRoom(now) }
        while let frame = first, now - frame.since >= Self.waitNanoseconds { frame.onLate() }
        if first != nil { tickLater() }
    }
}
