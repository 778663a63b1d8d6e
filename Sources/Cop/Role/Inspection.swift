// SPDX-License-Identifier: Apache-2.0

internal import Log
internal import Observability
internal import Primitives
internal import Records

/// Decodes one object of the cell for people.
enum Inspection {
    /// A row for the object, and one for each fragment or segment in it. Damage is reported, not
    /// passed over.
    static func report(of bytes: Bytes) throws(CommandError) -> Report {
        do throws(DecodeError) {
            if bytes.count >= 4, bytes[0..<4] == Bytes(utf8: "MSEG") { return try segments(bytes) }
            switch try LogSlot(bytes) {
            case .chunk(let chunk): return try self.chunk(chunk)
            case .seal(let seal): return self.seal(seal)
            }
        } catch {
            throw CommandError(.failure, "not a whole chunk, seal or segment object: \(error)")
        }
    }

    private static func chunk(_ chunk: Chunk) throws(DecodeError) -> Report {
        var report = Report([
            "object", "channel", "index", "fragment", "stream", "streamlet", "first_seq_num",
            "end_seq_num", "first_timestamp", "last_timestamp", "offset", "bytes",
            "metered_bytes", "depends_on",
        ])
        for entry in chunk.entries {
            try entry.checkRecords(chunk.fragment(entry))
            report.add([
                .text("chunk"), .number(chunk.header.channel.number), .number(chunk.header.index),
                .text("\(entry.kind)"), .text(entry.stream.description),
                .number(UInt64(entry.streamlet)), .number(entry.firstSeqNum),
                .number(entry.endSeqNum), .number(entry.firstTimestamp),
                .number(entry.lastTimestamp), .number(UInt64(entry.range.lowerBound)),
                .number(UInt64(entry.range.count)), .number(UInt64(entry.meteredBytes)),
                Report.Value(entry.dependency.map { "\($0.channel)/\($0.index)" }),
            ])
        }
        return report
    }

    private static func seal(_ seal: Seal) -> Report {
        var report = Report(["object", "channel", "index", "created_ms", "owner", "reason"])
        report.add([
            .text("seal"), .number(seal.header.channel.number), .number(seal.header.index),
            .number(seal.header.createdMilliseconds), .text(seal.owner), .text(seal.reason),
        ])
        return report
    }

    private static func segments(_ bytes: Bytes) throws(DecodeError) -> Report {
        let object = try SegmentObject(bytes)
        var report = Report([
            "object", "channel", "name", "stream", "streamlet", "start_seq_num", "end_seq_num",
            "first_timestamp", "last_timestamp", "offset", "bytes", "metered_bytes", "closes",
        ])
        for (placement, segment) in zip(object.placements, object.segments) {
            try segment.checkRecords()
            let span = placement.span
            report.add([
                .text("segment"), Report.Value(object.header.channel?.number),
                Report.Value(segment.index.state.map { "s2://\($0.basin)/\($0.name)" }),
                .text(span.stream.description), .number(UInt64(span.streamlet)),
                .number(span.start.seqNum), .number(span.endSeqNum),
                .number(span.start.timestamp), .number(span.lastTimestamp),
                .number(UInt64(placement.offset)), .number(UInt64(placement.length)),
                .number(span.meteredBytes), .flag(placement.closes),
            ])
        }
        return report
    }
}
