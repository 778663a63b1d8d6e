// SPDX-License-Identifier: Apache-2.0

import Glibc
import HTTP
import Primitives

/// A request made up by a test, and what became of its response.
final class FakeExchange: HTTPExchange {
    let request: HTTPRequest
    var onBody: ((Bytes) -> Void)? { didSet { deliver() } }
    var onBodyEnd: (() -> Void)?
    var onAbort: (() -> Void)?
    var onWritable: (() -> Void)?

    private(set) var status: Int?
    private(set) var responseHeaders: [(name: String, value: String)] = []
    private(set) var written: [Bytes] = []
    private(set) var isFinished = false
    private(set) var isAborted = false
    private(set) var isReading = true
    /// While true, what is written counts as unsent until `takeUnsent`.
    var holdsUnsent = false
    private(set) var unsentBytes = 0

    private var pending: [Bytes] = []
    private var bodyEnded = false
    private var endDelivered = false
    private var isServed = false

    /// `target` is a raw path with an optional query; header names in lower case.
    init(
        _ method: String, _ target: String, headers: [(name: String, value: String)] = [],
        isHTTP2: Bool = true
    ) {
        let question = target.firstIndex(of: "?")
        request = HTTPRequest(
            method: method, path: String(target[..<(question ?? target.endIndex)]),
            query: question.map { String(target[target.index(after: $0)...]) } ?? "",
            headers: headers, isHTTP2: isHTTP2)
    }

    // MARK: The client's side

    /// Hands the request to `service`, as a transport would.
    func serve(by service: any HTTPService) {
        service.serve(self)
        isServed = true
        deliver()
    }

    func feed(_ bytes: Bytes) {
        pending.append(bytes)
        deliver()
    }

    func endBody() {
        bodyEnded = true
        deliver()
    }

    func hangUp() {
        guard !isFinished && !isAborted else { return }
        isAborted = true
        onAbort?()
    }

    /// The client takes what is unsent, but for `left` bytes of it.
    func takeUnsent(allBut left: Int = 0) {
        unsentBytes = min(left, unsentBytes)
        onWritable?()
    }

    func responseHeader(_ name: String) -> String? {
        responseHeaders.first { $0.name == name }?.value
    }

    /// The response's body so far.
    var body: Bytes { written.joined() }
    var bodyText: String { body.lossyText }

    private func deliver() {
        guard isServed, isReading, !isAborted, !isFinished else { return }
        while isReading, !pending.isEmpty, let onBody { onBody(pending.removeFirst()) }
        if isReading && pending.isEmpty && bodyEnded && !endDelivered {
            endDelivered = true
            onBodyEnd?()
        }
    }

    // MARK: The service's side

    func setReading(_ reading: Bool) {
        isReading = reading
        if reading { deliver() }
    }

    func respond(_ status: Int, _ headers: [(name: String, value: String)]) {
        precondition(self.status == nil, "a response has one head")
        self.status = status
        responseHeaders = headers
    }

    func write(_ parts: [Bytes]) {
        precondition(status != nil && !isFinished, "a body stands between its head and its end")
        written.append(contentsOf: parts)
        if holdsUnsent { unsentBytes += byteCount(parts) }
    }

    func finish() {
        precondition(status != nil && !isFinished, "a response ends once")
        isFinished = true
    }

    func abort() {
        isAborted = true
        unsentBytes = 0
    }
}
