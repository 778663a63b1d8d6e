// SPDX-License-Identifier: Apache-2.0

internal import CCurl
internal import CCurlSupport
internal import Glibc
package import ObjectStorage
package import Primitives
internal import Synchronization

package struct CurlLimits: Sendable {
    /// Requests that are sent at once, each on a connection of its own.
    package var inFlightMax = 64
    /// Requests that wait beyond that; one more is refused.
    package var queuedMax = 1_024
    package var connectNanosecondsMax: Nanoseconds = .seconds(2)
    /// A transfer that moves less than 1 KiB/s for so long has failed.
    package var stallSecondsMax = 10
    /// A file of certificates to trust instead of the system's.
    package var certificatesPath: String?

    package init() {}
}

/// HTTP requests over libcurl, all on one thread.
///
/// Everything of libcurl's lives on that thread; the only state that is shared is a locked inbox,
/// and `curl_multi_wakeup` is the only call of libcurl's from outside. Who submits while the inbox
/// holds something already need not wake the thread: one wake-up per batch. Waiting before a retry
/// happens here too, so that a caller needs no timer of its own.
///
/// Dropping the driver stops it: what is under way then fails.
package final class CurlDriver: Sendable {
    private let core: CurlCore

    /// Throws `.unavailable` where the system refuses a thread or memory.
    package init(limits: CurlLimits = CurlLimits()) throws(StoreError) {
        core = try CurlCore(limits)
        try core.start()
    }

    deinit { core.stop() }

    /// Sends `request` and waits for the reply. A cancelled task's request is given up.
    package func perform(_ request: CurlRequest) async -> Result<CurlReply, CurlFailure> {
        let transfer = CurlTransfer(request)
        return await withTaskCancellationHandler {
            await withUnsafeContinuation { waiter in
                transfer.waiter = waiter
                if !core.submit(transfer) {
                    let failure = CurlFailure(
                        kind: .refused, wasSent: false, message: "too many requests wait")
                    transfer.finish(.failure(failure))
                }
            }
        } onCancel: {
            core.cancel(transfer)
        }
    }
}

extension CurlDriver {
    fileprivate static let isInitialised = curl_global_init(Int(CURL_GLOBAL_DEFAULT)) == CURLE_OK
}

// Safety: what is not locked belongs to the thread that `start` makes; `multi` is a constant,
// and outlives the thread and every caller, for they hold this object.
private final class CurlCore: @unchecked Sendable {
    private struct Inbox {
        var submitted: [CurlTransfer] = []
        var hasCancelled = false
        /// Transfers that were accepted and have not ended.
        var pending = 0
        var isStopping = false
    }
    private let inbox = Mutex(Inbox())
    private let limits: CurlLimits
    private let multi: UnsafeMutableRawPointer

    private var delayed: [CurlTransfer] = []
    private var waiting: [CurlTransfer] = []
    private var active: [UnsafeMutableRawPointer: CurlTransfer] = [:]
    private var idle: [CurlHandle] = []
    private var handles: [UnsafeMutableRawPointer: CurlHandle] = [:]
    private var endedCount = 0

    init(_ limits: CurlLimits) throws(StoreError) {
        precondition(limits.inFlightMax >= 1 && limits.queuedMax >= 1)
        guard CurlDriver.isInitialised, let multi = curl_multi_init() else {
            throw StoreError(.unavailable, "libcurl does not start")
        }
        self.limits = limits
        self.multi = multi
        for option in [CURLMOPT_MAX_HOST_CONNECTIONS, CURLMOPT_MAXCONNECTS] {
            _ = millrace_curl_multi_set_long(multi, option, limits.inFlightMax)
        }
    }

    deinit { curl_multi_cleanup(multi) }

    func start() throws(StoreError) {
        let me = Unmanaged.passRetained(self)
        var thread = pthread_t()
        let code = pthread_create(
            &thread, nil,
            { me in
                // Safety: the pointer is the reference that was retained for this thread.
                guard let me else { return nil }
                Unmanaged<CurlCore>.fromOpaque(me).takeRetainedValue().run()
                return nil
            }, me.toOpaque())
        guard code == 0 else {
            me.release()
            throw StoreError(.unavailable, "no thread for libcurl (error \(code))")
        }
        pthread_detach(thread)
    }

    func stop() {
        inbox.withLock { $0.isStopping = true }
        curl_multi_wakeup(multi)
    }

    /// False if too many wait.
    func submit(_ transfer: CurlTransfer) -> Bool {
        let (isAccepted, isFirst) = inbox.withLock { inbox in
            guard inbox.pending < limits.inFlightMax + limits.queuedMax, !inbox.isStopping else {
                return (false, false)
            }
            inbox.pending += 1
            inbox.submitted.append(transfer)
            return (true, inbox.submitted.count == 1)
        }
        if isFirst { curl_multi_wakeup(multi) }
        return isAccepted
    }

    func cancel(_ transfer: CurlTransfer) {
        transfer.isCancelled.store(true, ordering: .relaxed)
        inbox.withLock { $0.hasCancelled = true }
        curl_multi_wakeup(multi)
    }

    // What follows runs on the thread.

    private func run() {
        while true {
            let isStopping = takeInbox()
            let now = SystemClock.monotonicNanoseconds
            admit(now)
            beginWaiting()
            var running: Int32 = 0
            curl_multi_perform(multi, &running)
            finishEnded()
            if isStopping { break }
            if !waiting.isEmpty, active.count < limits.inFlightMax { continue }
            curl_multi_poll(multi, nil, 0, pollMilliseconds(), nil)
        }
        for transfer in Array(active.values) { fail(transfer, .refused, "the driver stops") }
        for transfer in delayed + waiting { fail(transfer, .refused, "the driver stops") }
        delayed = []
        waiting = []
        idle = []
        handles = [:]
    }

    private func beginWaiting() {
        let free = min(limits.inFlightMax - active.count, waiting.count)
        guard free > 0 else { return }
        let next = waiting[..<free]
        waiting.removeFirst(free)
        for transfer in next { begin(transfer) }
    }

    private func takeInbox() -> Bool {
        let ended = endedCount
        endedCount = 0
        let (batch, hasCancelled, isStopping) = inbox.withLock { inbox in
            defer {
                inbox.submitted = []
                inbox.hasCancelled = false
                inbox.pending -= ended
            }
            return (inbox.submitted, inbox.hasCancelled, inbox.isStopping)
        }
        if !batch.isEmpty {
            let now = SystemClock.monotonicNanoseconds
            for transfer in batch {
                transfer.due = now + transfer.request.delay
                transfer.deadline = transfer.due + transfer.request.deadline
                if transfer.request.delay > 0 {
                    delayed.append(transfer)
                } else {
                    waiting.append(transfer)
                }
            }
        }
        if hasCancelled || !batch.isEmpty { dropCancelled() }
        return isStopping
    }

    private func dropCancelled() {
        let all = Array(active.values) + delayed + waiting
        let cancelled = all.filter { $0.isCancelled.load(ordering: .relaxed) }
        guard !cancelled.isEmpty else { return }
        delayed.removeAll { $0.isCancelled.load(ordering: .relaxed) }
        waiting.removeAll { $0.isCancelled.load(ordering: .relaxed) }
        for transfer in cancelled { fail(transfer, .cancelled, "the task was cancelled") }
    }

    /// Moves on what is due, and gives up what waited beyond its deadline.
    private func admit(_ now: Nanoseconds) {
        if !delayed.isEmpty {
            waiting.append(contentsOf: delayed.filter { $0.due <= now })
            delayed.removeAll { $0.due <= now }
        }
        guard waiting.contains(where: { $0.deadline <= now }) else { return }
        let late = waiting.filter { $0.deadline <= now }
        waiting.removeAll { $0.deadline <= now }
        for transfer in late { fail(transfer, .timedOut, "waited too long for a connection") }
    }

    private func pollMilliseconds() -> Int32 {
        guard !delayed.isEmpty || !waiting.isEmpty else { return 1_000 }
        let now = SystemClock.monotonicNanoseconds
        let next = min(
            delayed.map(\.due).min() ?? .max, waiting.map(\.deadline).min() ?? .max,
            now + .seconds(1))
        return Int32(max((next - now + 999_999) / 1_000_000, 0))
    }

    private func begin(_ transfer: CurlTransfer) {
        guard let handle = idle.popLast() ?? CurlHandle(limits) else {
            return fail(transfer, .refused, "no memory for a request")
        }
        handles[handle.easy] = handle
        let left = transfer.deadline - SystemClock.monotonicNanoseconds
        handle.prepare(transfer, milliseconds: Int(max(left / 1_000_000, 1)))
        transfer.easy = handle.easy
        active[handle.easy] = transfer
        curl_multi_add_handle(multi, handle.easy)
    }

    private func finishEnded() {
        var code = CURLE_OK
        while let easy = millrace_curl_next_done(multi, &code) {
            guard let transfer = active[easy] else { continue }
            var status = 0
            _ = millrace_curl_get_long(easy, CURLINFO_RESPONSE_CODE, &status)
            if code == CURLE_OK {
                release(transfer)
                transfer.finish(.success(transfer.finishedReply(status: status)))
            } else {
                let text = String(cString: curl_easy_strerror(code))
                let isTooLong = transfer.isReplyTooLong
                fail(transfer, CurlFailure.Kind(code, isReplyTooLong: isTooLong), text)
            }
        }
    }

    private func fail(_ transfer: CurlTransfer, _ kind: CurlFailure.Kind, _ message: String) {
        var wasSent = transfer.sentAny
        if let easy = transfer.easy {
            var requestBytes = 0
            _ = millrace_curl_get_long(easy, CURLINFO_REQUEST_SIZE, &requestBytes)
            wasSent = wasSent || requestBytes > 0
        }
        release(transfer)
        transfer.finish(.failure(CurlFailure(kind: kind, wasSent: wasSent, message: message)))
    }

    /// Takes the transfer's handle back; the transfer ends.
    private func release(_ transfer: CurlTransfer) {
        endedCount += 1
        guard let easy = transfer.easy else { return }
        curl_multi_remove_handle(multi, easy)
        curl_slist_free_all(transfer.headerList)
        transfer.headerList = nil
        transfer.easy = nil
        active[easy] = nil
        if let handle = handles.removeValue(forKey: easy) { idle.append(handle) }
    }
}

extension CurlFailure.Kind {
    fileprivate init(_ code: CURLcode, isReplyTooLong: Bool) {
        if isReplyTooLong {
            self = .replyTooLong
            return
        }
        switch code {
        case CURLE_OPERATION_TIMEDOUT: self = .timedOut
        case CURLE_COULDNT_CONNECT, CURLE_COULDNT_RESOLVE_HOST, CURLE_COULDNT_RESOLVE_PROXY,
            CURLE_SSL_CONNECT_ERROR:
            self = .notConnected
        case CURLE_SEND_ERROR, CURLE_RECV_ERROR, CURLE_GOT_NOTHING, CURLE_PARTIAL_FILE,
            CURLE_SEND_FAIL_REWIND, CURLE_WEIRD_SERVER_REPLY:
            self = .connectionLost
        default: self = .broken
        }
    }
}

/// An easy handle with the options that never change; reused, for it keeps DNS and TLS sessions.
private final class CurlHandle {
    let easy: UnsafeMutableRawPointer

    init?(_ limits: CurlLimits) {
        guard let easy = curl_easy_init() else { return nil }
        self.easy = easy
        let constants: [(CURLoption, Int)] = [
            (CURLOPT_NOSIGNAL, 1), (CURLOPT_TCP_NODELAY, 1), (CURLOPT_PATH_AS_IS, 1),
            (CURLOPT_HTTP_VERSION, CURL_HTTP_VERSION_1_1), (CURLOPT_FOLLOWLOCATION, 0),
            (CURLOPT_CONNECTTIMEOUT_MS, Int(limits.connectNanosecondsMax / 1_000_000)),
            (CURLOPT_LOW_SPEED_LIMIT, 1_024), (CURLOPT_LOW_SPEED_TIME, limits.stallSecondsMax),
            (CURLOPT_BUFFERSIZE, 512 * 1_024), (CURLOPT_UPLOAD_BUFFERSIZE, 512 * 1_024),
        ]
        for (option, value) in constants { _ = millrace_curl_set_long(easy, option, value) }
        // The proxies of a person's environment are not meant for a store.
        _ = millrace_curl_set_text(easy, CURLOPT_PROXY, "")
        _ = millrace_curl_set_text(easy, CURLOPT_PROTOCOLS_STR, "http,https")
        if let path = limits.certificatesPath {
            _ = millrace_curl_set_text(easy, CURLOPT_CAINFO, path)
        }
        setCallbacks()
    }

    deinit { curl_easy_cleanup(easy) }

    private func setCallbacks() {
        // Safety: the context is the transfer that `prepare` sets, which the driver holds until
        // libcurl is done with the handle.
        _ = millrace_curl_set_data_fn(easy, CURLOPT_READFUNCTION) { room, size, count, context in
            guard let context else { return Int(CURL_READFUNC_ABORT) }
            return Unmanaged<CurlTransfer>.fromOpaque(context).takeUnretainedValue()
                .read(into: UnsafeMutableRawBufferPointer(start: room, count: size * count))
        }
        _ = millrace_curl_set_seek_fn(easy, CURLOPT_SEEKFUNCTION) { context, offset, origin in
            guard let context, origin == SEEK_SET else { return CURL_SEEKFUNC_CANTSEEK }
            let transfer = Unmanaged<CurlTransfer>.fromOpaque(context).takeUnretainedValue()
            return transfer.seek(to: Int(offset)) ? CURL_SEEKFUNC_OK : CURL_SEEKFUNC_FAIL
        }
        _ = millrace_curl_set_data_fn(easy, CURLOPT_WRITEFUNCTION) { bytes, size, count, context in
            guard let context else { return 0 }
            let transfer = Unmanaged<CurlTransfer>.fromOpaque(context).takeUnretainedValue()
            let part = UnsafeRawBufferPointer(start: bytes, count: size * count)
            return transfer.receive(part) ? part.count : 0
        }
        _ = millrace_curl_set_data_fn(easy, CURLOPT_HEADERFUNCTION) { bytes, size, count, context in
            guard let context else { return 0 }
            Unmanaged<CurlTransfer>.fromOpaque(context).takeUnretainedValue()
                .receiveHeader(UnsafeRawBufferPointer(start: bytes, count: size * count))
            return size * count
        }
    }

    func prepare(_ transfer: CurlTransfer, milliseconds: Int) {
        let context = Unmanaged.passUnretained(transfer).toOpaque()
        let contexts = [CURLOPT_READDATA, CURLOPT_SEEKDATA, CURLOPT_WRITEDATA, CURLOPT_HEADERDATA]
        for option in contexts { _ = millrace_curl_set_pointer(easy, option, context) }
        let head = transfer.request.head()
        _ = millrace_curl_set_text(easy, CURLOPT_URL, head.url)
        // Without the last one libcurl would ask and wait before it sends a body.
        for header in head.headers + ["expect:"] {
            transfer.headerList = curl_slist_append(transfer.headerList, header)
        }
        _ = millrace_curl_set_pointer(easy, CURLOPT_HTTPHEADER, transfer.headerList)
        _ = millrace_curl_set_long(easy, CURLOPT_TIMEOUT_MS, milliseconds)

        _ = millrace_curl_set_text(easy, CURLOPT_CUSTOMREQUEST, nil)
        _ = millrace_curl_set_long(easy, CURLOPT_UPLOAD, 0)
        _ = millrace_curl_set_long(easy, CURLOPT_HTTPGET, 1)
        switch transfer.request.method {
        case .get: break
        case .head: _ = millrace_curl_set_long(easy, CURLOPT_NOBODY, 1)
        case .delete: _ = millrace_curl_set_text(easy, CURLOPT_CUSTOMREQUEST, "DELETE")
        case .put:
            _ = millrace_curl_set_long(easy, CURLOPT_UPLOAD, 1)
            _ = millrace_curl_set_size(
                easy, CURLOPT_INFILESIZE_LARGE, curl_off_t(transfer.bodyBytes))
        }
    }
}
