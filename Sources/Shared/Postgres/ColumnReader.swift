// SPDX-License-Identifier: Apache-2.0

internal import Metadata
internal import Primitives
internal import Records

/// Reads one row from left to right.
struct ColumnReader {
    private let rows: Rows
    private let row: Int
    private var column = 0

    init(_ rows: Rows, row: Int = 0, from column: Int = 0) {
        self.rows = rows
        self.row = row
        self.column = column
    }

    mutating func textIfAny() throws(MetadataError) -> String? {
        guard row < rows.count, column < rows.columnCount else { throw misfit("nothing") }
        defer { column += 1 }
        return rows[row, column]
    }

    mutating func text() throws(MetadataError) -> String {
        guard let text = try textIfAny() else { throw misfit("NULL") }
        return text
    }

    /// What `EscapedText` made.
    mutating func escapedText() throws(MetadataError) -> String {
        let escaped = try text()
        guard let text = EscapedText.unescape(escaped) else { throw misfit(escaped) }
        return text
    }

    mutating func numberIfAny<Number: FixedWidthInteger>(
        _: Number.Type = Number.self
    ) throws(MetadataError) -> Number? {
        guard let text = try textIfAny() else { return nil }
        guard let number = Number(text) else { throw misfit(text) }
        return number
    }

    mutating func number<Number: FixedWidthInteger>(
        _: Number.Type = Number.self
    ) throws(MetadataError) -> Number {
        guard let number = try numberIfAny(Number.self) else { throw misfit("NULL") }
        return number
    }

    mutating func flag() throws(MetadataError) -> Bool {
        guard let flag = try flagIfAny() else { throw misfit("NULL") }
        return flag
    }

    /// As Postgres writes a boolean, or JSON within Postgres.
    mutating func flagIfAny() throws(MetadataError) -> Bool? {
        switch try textIfAny() {
        case nil: return nil
        case "t", "true": return true
        case "f", "false": return false
        case let text?: throw misfit(text)
        }
    }

    mutating func nameIfAny<Name: RawRepresentable<String>>(
        _: Name.Type = Name.self
    ) throws(MetadataError) -> Name? {
        guard let text = try textIfAny() else { return nil }
        guard let name = Name(rawValue: text) else { throw misfit(text) }
        return name
    }

    mutating func name<Name: RawRepresentable<String>>(
        _: Name.Type = Name.self
    ) throws(MetadataError) -> Name {
        guard let name = try nameIfAny(Name.self) else { throw misfit("NULL") }
        return name
    }

    mutating func streamIDIfAny() throws(MetadataError) -> StreamID? {
        guard let text = try textIfAny() else { return nil }
        guard let id = StreamID(hex: text.filter { $0 != "-" }) else { throw misfit(text) }
        return id
    }

    mutating func streamID() throws(MetadataError) -> StreamID {
        guard let id = try streamIDIfAny() else { throw misfit("NULL") }
        return id
    }

    mutating func channelID() throws(MetadataError) -> ChannelID { ChannelID(try number()) }

    private func misfit(_ found: String) -> MetadataError {
        MetadataError(.failed, "column \(column + 1) of a row holds \(found)")
    }
}

// MARK: Rows

extension ColumnReader {
    /// `millrace.basin_info`; nil if all is NULL.
    mutating func basinIfAny() throws(MetadataError) -> Basin? {
        guard let name = try textIfAny() else { return nil }
        var config = BasinConfig()
        config.defaultStreamConfig = try wish()
        config.streamCipher = try nameIfAny()
        config.createStreamOnAppend = try flag()
        config.createStreamOnRead = try flag()
        return Basin(
            name: name, config: config, version: try number(), location: try textIfAny(),
            createdMilliseconds: try number(), deletedMilliseconds: try numberIfAny())
    }

    /// `millrace.stream_info`; nil if all is NULL.
    mutating func lookupIfAny() throws(MetadataError) -> StreamLookup? {
        guard let id = try streamIDIfAny() else { return nil }
        let (basin, name) = (try text(), try text())
        let config = StreamConfig(resolving: try wish(), over: StreamConfigWish())
        let version = try number(UInt64.self)
        let cipher = try nameIfAny(Cipher.self)
        let tail = StreamPosition(seqNum: try number(), timestamp: try number())
        let state = StreamState(
            tail: tail, fencingToken: try escapedText(), fencingTokenPosition: try number(),
            trimPoint: try number())
        let stream = Stream(
            id: id, basin: basin, name: name, config: config, version: version, cipher: cipher,
            state: state, createdMilliseconds: try number(),
            deletedMilliseconds: try numberIfAny())
        guard let streamlet = try numberIfAny(StreamletNumber.self) else {
            column += 3
            return StreamLookup(stream: stream, owner: nil)
        }
        return StreamLookup(stream: stream, owner: try owner(streamlet))
    }

    mutating func owner(_ streamlet: StreamletNumber) throws(MetadataError) -> Owner {
        Owner(
            streamlet: streamlet, channel: try channelID(), address: try text(),
            channelIsActive: try flag())
    }

    mutating func channel() throws(MetadataError) -> ChannelRow {
        let id = try channelID()
        let (storageClass, zone, address) = (try text(), try text(), try text())
        let state = try name(ChannelState.self)
        let renewals = try number(UInt64.self)
        let load = ChannelLoad(
            bytesPerSecond: try number(), queueDelayMicroseconds: try number(),
            openStreamlets: try number())
        return ChannelRow(
            id: id, storageClass: storageClass, zone: zone, address: address, state: state,
            renewals: renewals, load: load, flushedEnd: try number(), sealedAt: try numberIfAny(),
            startedMilliseconds: try number())
    }

    mutating func streamlet() throws(MetadataError) -> Streamlet {
        Streamlet(
            stream: try streamID(), number: try number(), channel: try channelID(),
            start: try number(), end: try numberIfAny(), state: try name())
    }

    mutating func segmentIfAny() throws(MetadataError) -> SegmentRow? {
        guard let stream = try streamIDIfAny() else { return nil }
        let start = StreamPosition(seqNum: try number(), timestamp: try number())
        return SegmentRow(
            stream: stream, start: start, endSeqNum: try number(), lastTimestamp: try number(),
            bucket: try text(), object: try text(), offset: try number(), length: try number(),
            meteredBytes: try number(), checksum: try number())
    }

    private mutating func wish() throws(MetadataError) -> StreamConfigWish {
        var wish = StreamConfigWish()
        wish.storageClass = try textIfAny()
        if let retention = try textIfAny() {
            if retention == "infinite" {
                wish.retention = .infinite
            } else if let seconds = UInt64(retention) {
                wish.retention = .age(seconds: seconds)
            } else {
                throw misfit(retention)
            }
        }
        wish.timestampingMode = try nameIfAny()
        wish.timestampingUncapped = try flagIfAny()
        wish.deleteOnEmptyMinAgeSeconds = try numberIfAny()
        return wish
    }
}
