// SPDX-License-Identifier: Apache-2.0

internal import Crypto
package import ObjectStorage
package import Primitives
private import Synchronization

/// An object store in a bucket of S3, or of anything that speaks its API and honours
/// `If-None-Match: *`.
///
/// What changes nothing, and `delete`, is tried again on `.unavailable`, within a budget, on the
/// driver's thread. A `put` is not: whether its outcome is known is for `putOnce` to find out. When
/// the store says that our clock is wrong, its own is taken.
package final class S3Store: MeasuredStore {
    package struct Limits: Sendable {
        package var curl = CurlLimits()
        /// For one request, from its start to the reply's last byte.
        package var requestNanosecondsMax: Nanoseconds = .seconds(30)
        /// For the tries of one call, `put` excepted.
        package var backoff = Backoff(
            first: .milliseconds(20), delayMax: .seconds(1), triesMax: 6, budget: .seconds(15))
        /// The largest object that `get` takes, in bytes.
        package var objectBytesMax = 1 << 30
        /// Whether the hash of a body is signed; nil: without TLS only, which protects it else.
        package var signsPayload: Bool?

        package init() {}
    }

    private let address: S3Address
    private let signer: SigV4
    private let driver: CurlDriver
    private let limits: Limits
    private let signsPayload: Bool
    private let meter: StoreMeter
    /// What is added to our clock to get the store's, in milliseconds.
    private let clockSkew: ClockSkew

    /// Throws `.invalidRequest` for a bad endpoint. Sends nothing yet.
    package init(
        _ location: S3Location, credentials: S3Credentials, limits: Limits = Limits(),
        meter: StoreMeter = StoreMeter(),
        wallMilliseconds: @escaping @Sendable () -> UInt64 = { SystemClock.wallMilliseconds }
    ) throws(StoreError) {
        address = try S3Address(location)
        signer = SigV4(credentials: credentials, region: location.region)
        driver = try CurlDriver(limits: limits.curl)
        self.limits = limits
        self.meter = meter
        signsPayload = limits.signsPayload ?? !address.isEncrypted
        clockSkew = ClockSkew(wallMilliseconds)
    }

    package var statistics: StoreStatistics { meter.snapshot }

    package func put(
        _ key: String, _ body: [Bytes], ifAbsent: Bool
    ) async throws(StoreError) -> PutResult {
        try validate(key)
        let start = meter.begin()
        do throws(StoreError) {
            let call = Call(
                .put, address.path(ofKey: key), headers: ifAbsent ? [("if-none-match", "*")] : [],
                body: body)
            let reply = try await send(call, key: key)
            if reply.status == 412, ifAbsent {
                // The object may be our own, from the first time that the request went out.
                guard !reply.wasSentAgain else {
                    throw StoreError(
                        .unavailable, outcomeUnknown: true, "\(key): sent twice, and it is there")
                }
                meter.end(put: key, body, since: start, .success(.exists))
                return .exists
            }
            guard reply.status == 200 else {
                throw S3Refusal(reply).storeError(key, isChange: true)
            }
            meter.end(put: key, body, since: start, .success(.created))
            return .created
        } catch {
            meter.end(put: key, body, since: start, .failure(error))
            throw error
        }
    }

    package func get(_ key: String, range: Range<Int>?) async throws(StoreError) -> ObjectSlice {
        try validate(key)
        try ObjectKey.validateRange(range)
        let start = meter.begin()
        do throws(StoreError) {
            var call = Call(.get, address.path(ofKey: key))
            if let range {
                call.headers.append(("range", "bytes=\(range.lowerBound)-\(range.upperBound - 1)"))
            }
            call.replyBytesMax = limits.objectBytesMax
            let reply = try await sendRetrying(call, key: key)
            let slice = try Self.slice(reply, range, key: key)
            meter.end(.get, since: start, .done, bytes: slice.bytes.count)
            return slice
        } catch {
            meter.end(.get, since: start, error)
            throw error
        }
    }

    package func head(_ key: String) async throws(StoreError) -> ObjectInfo? {
        try validate(key)
        let start = meter.begin()
        do throws(StoreError) {
            let reply = try await sendRetrying(Call(.head, address.path(ofKey: key)), key: key)
            guard reply.status != 404 else {
                meter.end(.head, since: start, .notFound)
                return nil
            }
            guard reply.status == 200, let size = reply.contentLength else {
                throw S3Refusal(reply).storeError(key, isChange: false)
            }
            meter.end(.head, since: start, .done)
            return ObjectInfo(
                key: key, size: size,
                modifiedMilliseconds: S3Time.parse(http: reply.lastModified) ?? 0)
        } catch {
            meter.end(.head, since: start, error)
            throw error
        }
    }

    package func list(
        prefix: String, after: String, limit: Int
    ) async throws(StoreError) -> ObjectListing {
        try ObjectKey.validateListing(prefix: prefix, after: after, limit: limit)
        let start = meter.begin()
        do throws(StoreError) {
            let listing = try await listPages(prefix: prefix, after: after, limit: limit)
            meter.end(.list, since: start, .done)
            return listing
        } catch {
            meter.end(.list, since: start, error)
            throw error
        }
    }

    package func delete(_ key: String) async throws(StoreError) {
        try validate(key)
        let start = meter.begin()
        do throws(StoreError) {
            let reply = try await sendRetrying(Call(.delete, address.path(ofKey: key)), key: key)
            let refusal = S3Refusal(reply)
            let isGone = reply.status == 404 && refusal.code != "NoSuchBucket"
            guard reply.status == 204 || reply.status == 200 || isGone else {
                throw refusal.storeError(key, isChange: true)
            }
            meter.end(.delete, since: start, .done)
        } catch {
            meter.end(.delete, since: start, error)
            throw error
        }
    }

    private func validate(_ key: String) throws(StoreError) {
        try ObjectKey.validate(key)
        guard address.prefix.utf8.count + key.utf8.count <= ObjectKey.bytesMax else {
            throw StoreError(.invalidRequest, "the key is too long behind the store's prefix")
        }
    }

    /// Asks for pages until one has objects: a page may have none and yet not be the last.
    private func listPages(
        prefix: String, after: String, limit: Int
    ) async throws(StoreError) -> ObjectListing {
        var continuation: String?
        while true {
            var call = Call(.get, address.bucketPath)
            call.query = [
                ("list-type", "2"), ("encoding-type", "url"), ("max-keys", String(limit)),
                ("prefix", address.prefix + prefix),
            ]
            if let continuation {
                call.query.append(("continuation-token", continuation))
            } else if !after.isEmpty {
                call.query.append(("start-after", address.prefix + after))
            }
            call.replyBytesMax = 16 << 20
            let reply = try await sendRetrying(call, key: prefix)
            guard reply.status == 200 else {
                throw S3Refusal(reply).storeError(prefix, isChange: false)
            }
            let page: S3ListPage
            do throws(DecodeError) {
                page = try S3ListPage(reply.body, prefix: address.prefix)
            } catch {
                throw StoreError(.failed, "a listing cannot be read: \(error)")
            }
            if !page.objects.isEmpty || !page.isTruncated {
                return ObjectListing(objects: page.objects, hasMore: page.isTruncated)
            }
            guard let next = page.continuation, next != continuation else {
                throw StoreError(.failed, "a listing does not say how it goes on")
            }
            continuation = next
        }
    }

    private static func slice(
        _ reply: CurlReply, _ range: Range<Int>?, key: String
    ) throws(StoreError) -> ObjectSlice {
        switch (reply.status, range) {
        case (200, nil):
            return ObjectSlice(bytes: reply.body, objectSize: reply.body.count)
        case (206, .some(let range)):
            guard let size = reply.objectSize,
                reply.body.count == min(range.upperBound, size) - range.lowerBound
            else { throw StoreError(.failed, "\(key): another part than was asked for") }
            return ObjectSlice(bytes: reply.body, objectSize: size)
        case (200, .some(let range)):
            // A server may answer a range with the whole.
            let size = reply.body.count
            guard range.lowerBound < size else {
                throw StoreError(.rangeNotSatisfiable, "\(key) has \(size) bytes")
            }
            let part = reply.body[range.lowerBound..<min(range.upperBound, size)]
            return ObjectSlice(bytes: part, objectSize: size)
        default:
            throw S3Refusal(reply).storeError(key, isChange: false)
        }
    }

    private struct Call: Sendable {
        let method: CurlRequest.Method
        let path: String
        var query: [(name: String, value: String)] = []
        var headers: [(name: String, value: String)] = []
        var body: [Bytes] = []
        var replyBytesMax = 1 << 20

        init(
            _ method: CurlRequest.Method, _ path: String,
            headers: [(name: String, value: String)] = [], body: [Bytes] = []
        ) {
            self.method = method
            self.path = path
            self.headers = headers
            self.body = body
        }

        var isChange: Bool { method == .put || method == .delete }
    }

    /// `send`, tried again on replies and failures that another try may cure.
    private func sendRetrying(_ call: Call, key: String) async throws(StoreError) -> CurlReply {
        let start = SystemClock.monotonicNanoseconds
        var tries = 0
        var delay: Nanoseconds = 0
        var outcomeUnknown = false
        while true {
            let failure: StoreError
            do throws(StoreError) {
                let reply = try await send(call, key: key, delay: delay)
                guard reply.status >= 400 else { return reply }
                let error = S3Refusal(reply).storeError(key, isChange: call.isChange)
                guard error.isRetryable else { return reply }
                failure = error
            } catch {
                failure = error
            }
            tries += 1
            outcomeUnknown = outcomeUnknown || failure.outcomeUnknown
            guard failure.isRetryable, !Task.isCancelled,
                let next = limits.backoff.delay(
                    afterTries: tries, elapsed: SystemClock.monotonicNanoseconds - start,
                    random: UInt64.random(in: .min ... .max))
            else {
                throw StoreError(failure.kind, outcomeUnknown: outcomeUnknown, failure.message)
            }
            delay = next
            meter.addRetry()
        }
    }

    private func send(
        _ call: Call, key: String, delay: Nanoseconds = 0
    ) async throws(StoreError) -> CurlReply {
        let reply = try await sendOnce(call, key: key, delay: delay)
        guard reply.status == 403, S3Refusal(reply).isClockSkew,
            let theirs = S3Time.parse(http: reply.date)
        else { return reply }
        // Refused before it did anything, so that even a put may go out again.
        clockSkew.adjust(theirMilliseconds: theirs)
        meter.addRetry()
        return try await sendOnce(call, key: key, delay: 0)
    }

    private func sendOnce(
        _ call: Call, key: String, delay: Nanoseconds
    ) async throws(StoreError) -> CurlReply {
        let request = CurlRequest(
            method: call.method, body: call.body, replyBytesMax: call.replyBytesMax, delay: delay,
            deadline: limits.requestNanosecondsMax,
            head: { [signer, address, signsPayload, clockSkew] in
                let hash =
                    signsPayload
                    ? Hex.encode(SHA256.digest(call.body)) : SigV4.unsignedPayload
                let request = SigV4.Request(
                    method: call.method.rawValue, path: call.path, query: call.query,
                    headers: call.headers + [("host", address.host)], payloadHash: hash)
                let headers = signer.signedHeaders(
                    request, wallMilliseconds: clockSkew.wallMilliseconds)
                return CurlRequest.Head(
                    url: address.url(path: call.path, query: request.queryText),
                    headers: headers.map { "\($0.name): \($0.value)" })
            })
        do throws(CurlFailure) {
            return try await driver.perform(request).get()
        } catch {
            throw error.storeError(key, isChange: call.isChange)
        }
    }
}

/// The store's clock, as far as we know it.
private final class ClockSkew: Sendable {
    private let skewMilliseconds = Atomic<Int64>(0)
    private let own: @Sendable () -> UInt64

    init(_ own: @escaping @Sendable () -> UInt64) { self.own = own }

    var wallMilliseconds: UInt64 {
        UInt64(max(Int64(own()) + skewMilliseconds.load(ordering: .relaxed), 0))
    }

    func adjust(theirMilliseconds: UInt64) {
        skewMilliseconds.store(Int64(theirMilliseconds) - Int64(own()), ordering: .relaxed)
    }
}
