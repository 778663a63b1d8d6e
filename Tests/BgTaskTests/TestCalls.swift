// SPDX-License-Identifier: Apache-2.0

import Primitives
import RPC
import TestSupport

/// Calls that end at once with what `answer` says.
final class TestCalls: CallClient {
    private let loop: ManualLoop
    var answer: (Method, Bytes) -> Status = { _, _ in .notConnected }
    private(set) var count = 0
    /// Addresses that never answer.
    var hung: Set<String> = []

    init(_ loop: ManualLoop) { self.loop = loop }

    func call(
        _ address: String, _ method: Method, _ payload: Bytes, deadline: Nanoseconds?
    ) -> any Call {
        count += 1
        let call = TestCall()
        if hung.contains(address) {
            _ = loop.after(deadline ?? .seconds(3_600)) {
                call.onEnd?(.deadlineExceeded, Bytes())
            }
        } else {
            loop.soon { [self] in call.onEnd?(answer(method, payload), Bytes()) }
        }
        return call
    }
}

private final class TestCall: Call {
    var onMessage: ((Bytes) -> Void)?
    var onFinishedSending: (() -> Void)?
    var onEnd: ((Status, Bytes) -> Void)?
    var onSendable: (() -> Void)?
    var unsentBytes: Int { 0 }
    func send(_ message: Bytes) {}
    func consumed(_ count: Int) {}
    func finishSending() {}
    func cancel() {}
    func end(_ status: Status, _ payload: Bytes) {}
}
