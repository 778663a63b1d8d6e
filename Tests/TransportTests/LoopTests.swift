// SPDX-License-Identifier: Apache-2.0

import Primitives
import Testing
import Transport

/// Runs `body` on a loop of its own.
func onLoop<Value: Sendable>(_ body: @escaping @Sendable (NIOLoop) async throws -> Value)
    async throws -> Value
{
    let loop = NIOLoop()
    let result: Result<Value, any Error> = await withUnsafeContinuation { waiter in
        loop.execute {
            loop.spawn {
                do {
                    waiter.resume(returning: .success(try await body(loop)))
                } catch {
                    waiter.resume(returning: .failure(error))
                }
            }
        }
    }
    await loop.shutdown()
    return try result.get()
}

/// Waits until `condition` holds, for a minute at most.
func eventually(
    _ loop: NIOLoop, within limit: Nanoseconds = .seconds(60), _ condition: () -> Bool
) async -> Bool {
    let end = loop.now + limit
    while !condition() {
        guard loop.now < end else { return false }
        await loop.sleep(.milliseconds(2))
    }
    return true
}

@Suite struct LoopTests {
    @Test func controlTasksStayOnTheLoop() async throws {
        try await onLoop { loop in
            #expect(loop.isCurrent)
            await loop.sleep(.milliseconds(1))
            #expect(loop.isCurrent)
            let value = await loop.withDeadline(.seconds(60)) {
                await loop.sleep(.milliseconds(1))
                return loop.isCurrent
            }
            #expect(value == true)
        }
    }

    @Test func timersFireInTimeAndCanBeCancelled() async throws {
        try await onLoop { loop in
            let start = loop.now
            let cancelled = loop.after(.milliseconds(5)) { Issue.record("was cancelled") }
            cancelled.cancel()
            await loop.sleep(.milliseconds(20))
            #expect(loop.now - start >= .milliseconds(20))
        }
    }

    @Test func deadlineEndsTheWait() async throws {
        try await onLoop { loop in
            let value: Int? = await loop.withDeadline(.milliseconds(10)) {
                await loop.sleep(.milliseconds(300))
                return 1
            }
            #expect(value == nil)
        }
    }
}
