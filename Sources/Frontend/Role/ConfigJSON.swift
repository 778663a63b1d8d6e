// SPDX-License-Identifier: Apache-2.0

internal import HTTP
internal import Metadata
internal import Primitives
internal import Records

extension JSONWriter {
    /// The stream's configuration, every leaf present.
    mutating func write(_ config: StreamConfig) {
        beginObject()
        field("storage_class", config.storageClass)
        name("retention_policy")
        write(config.retention)
        name("timestamping")
        beginObject()
        field("mode", config.timestampingMode.rawValue)
        field("uncapped", config.timestampingUncapped)
        endObject()
        name("delete_on_empty")
        beginObject()
        field("min_age_secs", config.deleteOnEmptyMinAgeSeconds)
        endObject()
        endObject()
    }

    mutating func write(_ retention: RetentionPolicy) {
        beginObject()
        switch retention {
        case .age(let seconds): field("age", seconds)
        case .infinite:
            name("infinite")
            beginObject()
            endObject()
        }
        endObject()
    }

    /// The basin's configuration. Its defaults are `null` while none was ever set, and whole else:
    /// what is unset shows the system's default.
    mutating func write(_ config: BasinConfig) {
        beginObject()
        name("default_stream_config")
        if config.defaultStreamConfig.isEmpty {
            writeNull()
        } else {
            write(StreamConfig(resolving: config.defaultStreamConfig, over: .init()))
        }
        field("stream_cipher", config.streamCipher?.rawValue)
        field("create_stream_on_append", config.createStreamOnAppend)
        field("create_stream_on_read", config.createStreamOnRead)
        endObject()
    }

    /// A `BasinInfo`.
    mutating func write(_ basin: Basin) {
        beginObject()
        field("name", basin.name)
        field("location", basin.location)
        field("created_at", CivilTime.text(milliseconds: basin.createdMilliseconds))
        field("deleted_at", basin.deletedMilliseconds.map { CivilTime.text(milliseconds: $0) })
        field("state", basin.deletedMilliseconds == nil ? "active" : "deleting")
        endObject()
    }

    /// A `StreamInfo`.
    mutating func write(_ stream: Stream) {
        beginObject()
        field("name", stream.name)
        field("created_at", CivilTime.text(milliseconds: stream.createdMilliseconds))
        field("deleted_at", stream.deletedMilliseconds.map { CivilTime.text(milliseconds: $0) })
        field("cipher", stream.cipher?.rawValue)
        endObject()
    }

    /// Only what is set, in one fixed order: two wishes are equal iff their texts are.
    fileprivate mutating func write(_ wish: StreamConfigWish) {
        beginObject()
        if let name = wish.storageClass { field("storage_class", name) }
        if let retention = wish.retention {
            name("retention_policy")
            write(retention)
        }
        if let mode = wish.timestampingMode { field("timestamping_mode", mode.rawValue) }
        if let uncapped = wish.timestampingUncapped { field("timestamping_uncapped", uncapped) }
        if let seconds = wish.deleteOnEmptyMinAgeSeconds { field("delete_on_empty", seconds) }
        endObject()
    }
}

/// What makes a creation the same as an earlier one: the client's token and all it asked for. One
/// JSON array, so that no two different creations have the same key.
enum CreationKey {
    static func stream(token: String?, wish: StreamConfigWish) -> String? {
        guard let token else { return nil }
        var json = JSONWriter()
        json.beginArray()
        json.write(token)
        json.write(wish)
        json.endArray()
        return json.finish().lossyText
    }

    static func basin(token: String?, config: BasinConfig, location: String?) -> String? {
        guard let token else { return nil }
        var json = JSONWriter()
        json.beginArray()
        json.write(token)
        json.write(config.defaultStreamConfig)
        if let cipher = config.streamCipher?.rawValue {
            json.write(cipher)
        } else {
            json.writeNull()
        }
        json.write(config.createStreamOnAppend)
        json.write(config.createStreamOnRead)
        if let location { json.write(location) } else { json.writeNull() }
        json.endArray()
        return json.finish().lossyText
    }
}

extension Reply {
    /// A basin or stream that was created, changed or found as it should be.
    static func provisioned(
        _ status: Int, _ result: ProvisionResult, _ body: Bytes
    ) -> Reply {
        .json(status, body, [("s2-provision-result", result.rawValue)])
    }

    /// One JSON value.
    static func json(_ status: Int, _ write: (inout JSONWriter) -> Void) -> Reply {
        .json(status, Bytes.json(write))
    }

    /// A page of a list.
    static func page<Item>(
        _ name: String, _ page: Page<Item>, _ write: (inout JSONWriter, Item) -> Void
    ) -> Reply {
        json(200) { json in
            json.beginObject()
            json.name(name)
            json.beginArray()
            for item in page.items { write(&json, item) }
            json.endArray()
            json.field("has_more", page.hasMore)
            json.endObject()
        }
    }
}

extension Bytes {
    static func json(_ write: (inout JSONWriter) -> Void) -> Bytes {
        var json = JSONWriter()
        write(&json)
        return json.finish()
    }
}
