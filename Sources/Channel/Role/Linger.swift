// SPDX-License-Identifier: Apache-2.0

internal import Primitives

/// When the open chunk is closed: at once while nothing is in flight, else once company had a fair
/// chance to come.
///
/// With W chunks in flight and a PUT that takes T, a chunk every T / W keeps the pipeline full;
/// more often gains no latency and costs requests. So the linger is T / W by a moving average of T,
/// within the storage class's bounds.
struct Linger {
    private let bounds: ClosedRange<Nanoseconds>
    private let width: Int64
    /// Exponential moving average over about 16 PUTs.
    private(set) var putNanoseconds: Nanoseconds = 0

    init(bounds: ClosedRange<Nanoseconds>, width: Int) {
        self.bounds = bounds
        self.width = Int64(width)
    }

    mutating func observe(put duration: Nanoseconds) {
        putNanoseconds =
            putNanoseconds == 0 ? duration : putNanoseconds + (duration - putNanoseconds) / 16
    }

    /// How long after its first append a chunk is closed, with `inFlight` others under way.
    func delay(inFlight: Int) -> Nanoseconds {
        if inFlight == 0 { return bounds.lowerBound }
        return min(max(putNanoseconds / width, bounds.lowerBound), bounds.upperBound)
    }
}
