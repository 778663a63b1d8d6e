// SPDX-License-Identifier: Apache-2.0

package import Primitives

/// What became of an object that only one writer may create.
package enum PutOnceOutcome: Sendable, Equatable {
    /// The object is there, and it is ours: created now, or by an earlier try whose reply was lost.
    case stored
    /// Somebody else's object is there; these are its first bytes, as many as the identity spans.
    case occupied(identity: Bytes)
}

extension ObjectStore {
    /// Creates the object unless another writer did, and tells one from the other after lost
    /// replies: the same bytes, put id included, go out on every try, so an object with our put id
    /// is ours whoever's reply was lost.
    ///
    /// Tries again on `.unavailable` within `backoff`; then throws the last error, whose outcome is
    /// unknown if any try's was.
    package func putOnce(
        _ key: String, _ body: [Bytes], identity: ObjectIdentity, loop: any Loop,
        random: RandomSource, backoff: Backoff
    ) async throws(StoreError) -> PutOnceOutcome {
        let own = body.joinedPrefix(identity.prefixBytes)[identity.putID]
        let start = loop.now
        var tries = 0
        var outcomeUnknown = false
        while true {
            let failure: StoreError
            do throws(StoreError) {
                if try await put(key, body, ifAbsent: true) == .created { return .stored }
                let found = try await get(key, range: 0..<identity.prefixBytes).bytes
                guard found.count == identity.prefixBytes else { return .occupied(identity: found) }
                return found[identity.putID] == own ? .stored : .occupied(identity: found)
            } catch {
                failure = error
            }
            tries += 1
            outcomeUnknown = outcomeUnknown || failure.outcomeUnknown
            // An object that was there for the put and not for the get: somebody deletes it. The
            // next put tells.
            guard failure.isRetryable || failure.kind == .notFound,
                let delay = backoff.delay(
                    afterTries: tries, elapsed: loop.now - start, random: random.next())
            else {
                throw StoreError(failure.kind, outcomeUnknown: outcomeUnknown, failure.message)
            }
            await loop.sleep(delay)
        }
    }

    /// `get`, tried again on `.unavailable` within `backoff`.
    package func getRetrying(
        _ key: String, range: Range<Int>?, loop: any Loop, random: RandomSource, backoff: Backoff
    ) async throws(StoreError) -> ObjectSlice {
        let start = loop.now
        var tries = 0
        while true {
            do throws(StoreError) {
                return try await get(key, range: range)
            } catch {
                tries += 1
                guard error.isRetryable,
                    let delay = backoff.delay(
                        afterTries: tries, elapsed: loop.now - start, random: random.next())
                else { throw error }
                await loop.sleep(delay)
            }
        }
    }
}

extension Array where Element == Bytes {
    /// The first `n` bytes of the parts back to back; the parts must hold that many.
    fileprivate func joinedPrefix(_ n: Int) -> Bytes {
        if let first, first.count >= n { return first[0..<n] }
        return joined()[0..<n]
    }
}
