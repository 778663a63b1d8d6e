// SPDX-License-Identifier: Apache-2.0

internal import Foundation
internal import S2SClient

/// When a cell that gets nothing more has done with what it got: no object was put for some time.
struct Quiet {
    /// How long none was put; longer than the cell's tasks take turns.
    let seconds: Double
    /// How long is waited for that at most, in seconds.
    let secondsMax: Double

    init(_ options: Options) {
        seconds = options.quietSeconds
        secondsMax = options.settleSeconds
    }

    /// Whether it came to that, with nothing left that `isBusy` finds, and after how many seconds.
    func wait(
        _ cell: [CellProcess], isBusy: (MetricsPage) -> Bool
    ) throws(ClientError) -> (isReached: Bool, after: Double) {
        let start = monotonicNanoseconds
        func sinceStart() -> Double { Double(monotonicNanoseconds - start) / 1e9 }
        var puts = -1.0
        var changedAt = sinceStart()
        while sinceStart() - changedAt < seconds, sinceStart() < secondsMax {
            let page = try MetricsPage.complete(cell)
            if page.storeRequests("put") != puts || isBusy(page) { changedAt = sinceStart() }
            puts = page.storeRequests("put")
            Thread.sleep(forTimeInterval: min(1, seconds / 4))
        }
        return (sinceStart() - changedAt >= seconds, changedAt)
    }
}
