// SPDX-License-Identifier: Apache-2.0

internal import Primitives

/// Does the same with many items, a bounded number of them at once.
final class Gang<Item> {
    private let loop: any Loop
    private let widthMax: Int
    private let work: (Item) async throws(TaskError) -> Void
    private var width = 0
    private var failure: TaskError?
    private var ended: UnsafeContinuation<Void, Never>?

    private init(
        loop: any Loop, widthMax: Int, work: @escaping (Item) async throws(TaskError) -> Void
    ) {
        precondition(widthMax >= 1)
        self.loop = loop
        self.widthMax = widthMax
        self.work = work
    }

    /// Begins `work` in the items' order, for as long as `goesOn` and nothing failed, and returns
    /// once all that was begun has ended. Throws the first failure.
    static func run(
        _ items: some Sequence<Item>, atOnce widthMax: Int, loop: any Loop, goesOn: () -> Bool,
        _ work: @escaping (Item) async throws(TaskError) -> Void
    ) async throws(TaskError) {
        let gang = Gang(loop: loop, widthMax: widthMax, work: work)
        for item in items {
            await gang.shrink(below: widthMax)
            guard gang.failure == nil, goesOn() else { break }
            gang.begin(item)
        }
        await gang.shrink(below: 1)
        if let failure = gang.failure { throw failure }
    }

    private func begin(_ item: Item) {
        width += 1
        loop.spawn { [self] in
            do throws(TaskError) {
                try await work(item)
            } catch {
                failure = failure ?? error
            }
            width -= 1
            ended?.resume()
            ended = nil
        }
    }

    private func shrink(below limit: Int) async {
        while width >= limit {
            await withUnsafeContinuation { (waiter: UnsafeContinuation<Void, Never>) in
                ended = waiter
            }
        }
    }
}
