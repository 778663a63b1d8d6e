// SPDX-License-Identifier: Apache-2.0

package import Primitives

/// Packs the records of many streams into segment objects of bounded size.
///
/// Streams come in the order given, and so do the runs of each, none of them split: what fits no
/// more into an object goes on in the next, as another segment. The caller asks for one object at a
/// time, so that it holds no more than one, and names each when it is about to store it.
package struct SegmentPacker {
    /// What one stream contributes.
    package struct Share {
        package let stream: StreamID
        package let streamlet: StreamletNumber
        /// Runs of whole stored records that continue one another.
        package let runs: ArraySlice<Bytes>
        /// Stands in the stream's last segment, or in one of its own where there are no runs.
        package let state: SegmentState?

        package init(
            stream: StreamID, streamlet: StreamletNumber, runs: [Bytes], state: SegmentState?
        ) {
            self.init(stream: stream, streamlet: streamlet, runs: runs[...], state: state)
        }

        /// With a slice of the runs of many streams.
        package init(
            stream: StreamID, streamlet: StreamletNumber, runs: ArraySlice<Bytes>,
            state: SegmentState?
        ) {
            self.stream = stream
            self.streamlet = streamlet
            self.runs = runs
            self.state = state
        }
    }

    /// One object, ready to be stored.
    package struct Packed {
        /// To be stored back to back.
        package let parts: [Bytes]
        /// The segments with records, and to which of the shares each belongs: what is to be
        /// published once the object is stored.
        package let segments: [(share: Int, placement: SegmentPlacement)]
    }

    private let shares: [Share]
    private let objectBytesTarget: Int
    private let segmentBytesTarget: Int
    /// The share that is packed, and how many of its runs are.
    private var share = 0
    private var run = 0

    /// The targets are bytes of a whole object, and of a segment's records; one run may overshoot
    /// them.
    package init(
        _ shares: [Share], objectBytesTarget: Int = SegmentObject.byteCountMax,
        segmentBytesTarget: Int = SegmentObject.byteCountMax
    ) {
        self.shares = shares
        self.objectBytesTarget = objectBytesTarget
        self.segmentBytesTarget = segmentBytesTarget
        skipEmptyShares()
    }

    /// Whether everything was given back.
    package var isEmpty: Bool { share == shares.count }

    /// The next object, under the name and with the date of `header`. There must be more to pack.
    package mutating func next(
        _ header: SegmentObjectHeader
    ) throws(SegmentPackingError) -> Packed {
        precondition(!isEmpty, "an empty object is never written")
        var builder = SegmentObjectBuilder(header)
        var segments: [(share: Int, placement: SegmentPlacement)] = []
        while !isEmpty {
            let present = shares[share]
            let piece = present.runs.dropFirst(run).prefix(fitting(builder))
            let isLast = run + piece.count == present.runs.count
            guard isLast || !piece.isEmpty,
                let placement = try add(piece, isLast ? present.state : nil, to: &builder)
            else { break }
            if !piece.isEmpty { segments.append((share, placement)) }
            run += piece.count
            if isLast {
                share += 1
                run = 0
                skipEmptyShares()
            }
        }
        guard !builder.isEmpty else {
            let stream = shares[share].stream
            throw SegmentPackingError("stream \(stream): a run of its records fits no object")
        }
        return Packed(parts: builder.finish().parts, segments: segments)
    }

    /// How many of the share's next runs go into the object, as one segment.
    private func fitting(_ builder: SegmentObjectBuilder) -> Int {
        var bytes = 0
        var count = 0
        for next in shares[share].runs.dropFirst(run) {
            bytes += next.count
            guard builder.hasRoom(forRecords: bytes) else { break }
            if count > 0 && bytes > segmentBytesTarget { break }
            let isFirst = count == 0 && builder.isEmpty
            if !isFirst && builder.byteCount + bytes > objectBytesTarget { break }
            count += 1
        }
        return count
    }

    private func add(
        _ runs: ArraySlice<Bytes>, _ state: SegmentState?, to builder: inout SegmentObjectBuilder
    ) throws(SegmentPackingError) -> SegmentPlacement? {
        let share = shares[share]
        do throws(DecodeError) {
            return try builder.add(
                stream: share.stream, streamlet: share.streamlet, records: runs, state: state)
        } catch {
            throw SegmentPackingError(
                "stream \(share.stream): its records do not continue: \(error)")
        }
    }

    private mutating func skipEmptyShares() {
        while share < shares.count, shares[share].runs.isEmpty, shares[share].state == nil {
            share += 1
        }
    }
}

/// Why records cannot become segments.
package struct SegmentPackingError: Error, Equatable, CustomStringConvertible {
    package let description: String
    init(_ description: String) { self.description = description }
}
