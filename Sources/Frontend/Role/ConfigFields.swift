// SPDX-License-Identifier: Apache-2.0

internal import HTTP
package import Primitives
package import Records

/// A member of a request: PATCH tells a member that is absent from one that is `null`.
enum Field<Value: Sendable>: Sendable {
    case absent
    case null
    case value(Value)

    var value: Value? {
        if case .value(let value) = self { value } else { nil }
    }

    var isAbsent: Bool {
        if case .absent = self { true } else { false }
    }

    var isNull: Bool {
        if case .null = self { true } else { false }
    }

    /// What a PATCH makes of `current`; nil is "unset".
    func applied(to current: Value?) -> Value? {
        switch self {
        case .absent: current
        case .null: nil
        case .value(let value): value
        }
    }

    func map<Other>(_ transform: (Value) throws(APIError) -> Other) throws(APIError)
        -> Field<Other>
    {
        switch self {
        case .absent: .absent
        case .null: .null
        case .value(let value): .value(try transform(value))
        }
    }
}

/// A JSON object of a request, read member by member. Unknown members are ignored.
struct JSONFields: Sendable {
    private let object: JSONObject
    /// Where the object stands, for messages: empty, or `config.timestamping.`
    private let path: String

    init(_ value: JSONValue, at path: String = "") throws(APIError) {
        guard let object = value.object else {
            let what = path.isEmpty ? "the body" : String(path.dropLast())
            throw APIError(.badJSON, "\(what) must be an object")
        }
        self.object = object
        self.path = path
    }

    func has(_ name: String) -> Bool { object[name] != nil }

    func text(_ name: String) throws(APIError) -> Field<String> {
        try read(name, "a string") { $0.string }
    }

    func flag(_ name: String) throws(APIError) -> Field<Bool> {
        try read(name, "true or false") { $0.bool }
    }

    func number(_ name: String) throws(APIError) -> Field<UInt64> {
        try read(name, "an integer of 0 to \(UInt64.max)") { $0.unsigned }
    }

    func fields(_ name: String) throws(APIError) -> Field<JSONFields> {
        try read(name, "an object") { $0.object == nil ? nil : $0 }
            .map { (value) throws(APIError) in try JSONFields(value, at: "\(path)\(name).") }
    }

    /// A member that must be there.
    func requiredText(_ name: String) throws(APIError) -> String {
        guard let text = try text(name).value else {
            throw APIError(.badJSON, "\(path)\(name) is required")
        }
        return text
    }

    func bad(_ name: String, _ problem: String) -> APIError {
        APIError(.badJSON, "\(path)\(name) \(problem)")
    }

    func invalid(_ name: String, _ problem: String) -> APIError {
        APIError(.invalid, "\(path)\(name) \(problem)")
    }

    private func read<Value>(
        _ name: String, _ kind: String, _ convert: (JSONValue) -> Value?
    ) throws(APIError) -> Field<Value> {
        guard let member = object[name] else { return .absent }
        if member.isNull { return .null }
        guard let value = convert(member) else { throw bad(name, "must be \(kind)") }
        return .value(value)
    }
}

// MARK: Configurations

/// A `StreamConfig` or a reconfiguration of one, as it came.
struct StreamConfigFields: Sendable {
    /// The classes that streams can have.
    static let storageClasses = ["standard", "express"]

    var storageClass = Field<String>.absent
    var retention = Field<RetentionPolicy>.absent
    var timestampingMode = Field<TimestampingMode>.absent
    var timestampingUncapped = Field<Bool>.absent
    var deleteOnEmptyMinAgeSeconds = Field<UInt64>.absent

    /// All leaves cleared: what `null` in place of the object means.
    static let null = StreamConfigFields(
        storageClass: .null, retention: .null, timestampingMode: .null,
        timestampingUncapped: .null, deleteOnEmptyMinAgeSeconds: .null)

    static let absent = StreamConfigFields()

    private init(
        storageClass: Field<String> = .absent, retention: Field<RetentionPolicy> = .absent,
        timestampingMode: Field<TimestampingMode> = .absent,
        timestampingUncapped: Field<Bool> = .absent,
        deleteOnEmptyMinAgeSeconds: Field<UInt64> = .absent
    ) {
        self.storageClass = storageClass
        self.retention = retention
        self.timestampingMode = timestampingMode
        self.timestampingUncapped = timestampingUncapped
        self.deleteOnEmptyMinAgeSeconds = deleteOnEmptyMinAgeSeconds
    }

    /// With `isPatch`, `delete_on_empty: {}` changes nothing; else it is an explicit 0.
    init(_ fields: JSONFields, isPatch: Bool) throws(APIError) {
        storageClass = try fields.text("storage_class")
        retention = try fields.fields("retention_policy").map(Self.retention)
        switch try fields.fields("timestamping") {
        case .absent: break
        case .null:
            timestampingMode = .null
            timestampingUncapped = .null
        case .value(let inner):
            timestampingMode = try inner.text("mode").map { (text) throws(APIError) in
                guard let mode = TimestampingMode(rawValue: text) else {
                    throw inner.bad("mode", "must be client-prefer, client-require or arrival")
                }
                return mode
            }
            timestampingUncapped = try inner.flag("uncapped")
        }
        switch try fields.fields("delete_on_empty") {
        case .absent: break
        case .null: deleteOnEmptyMinAgeSeconds = .null
        case .value(let inner):
            let seconds = try inner.number("min_age_secs")
            deleteOnEmptyMinAgeSeconds = isPatch ? seconds : .value(seconds.value ?? 0)
        }
        try check(fields)
    }

    /// What is well-formed but cannot be.
    private func check(_ fields: JSONFields) throws(APIError) {
        if let name = storageClass.value, !Self.storageClasses.contains(name) {
            throw fields.invalid("storage_class", "must be standard or express")
        }
        if retention.value == .age(seconds: 0) {
            throw fields.invalid("retention_policy", "must have an age above 0")
        }
    }

    private static func retention(_ fields: JSONFields) throws(APIError) -> RetentionPolicy {
        guard fields.has("age") != fields.has("infinite") else {
            throw APIError(.badJSON, "a retention policy must be either age or infinite")
        }
        if let seconds = try fields.number("age").value { return .age(seconds: seconds) }
        guard try fields.fields("infinite").value != nil else {
            throw APIError(.badJSON, "a retention policy must not be null")
        }
        return .infinite
    }

    /// As a wish of its own: what is absent or `null` is unset.
    var wish: StreamConfigWish { applied(to: StreamConfigWish()) }

    /// As a reconfiguration of a basin's defaults.
    func applied(to current: StreamConfigWish) -> StreamConfigWish {
        var wish = StreamConfigWish()
        wish.storageClass = storageClass.applied(to: current.storageClass)
        wish.retention = retention.applied(to: current.retention)
        wish.timestampingMode = timestampingMode.applied(to: current.timestampingMode)
        wish.timestampingUncapped = timestampingUncapped.applied(to: current.timestampingUncapped)
        wish.deleteOnEmptyMinAgeSeconds = deleteOnEmptyMinAgeSeconds.applied(
            to: current.deleteOnEmptyMinAgeSeconds)
        return wish
    }

    /// As a reconfiguration of a stream: what is cleared falls back to the basin's defaults.
    func applied(to current: StreamConfig, defaults: StreamConfigWish) -> StreamConfig {
        StreamConfig(resolving: applied(to: StreamConfigWish(explicit: current)), over: defaults)
    }

    /// Whether some leaf is cleared, so that the basin's defaults matter.
    var clearsSomething: Bool {
        storageClass.isNull || retention.isNull || timestampingMode.isNull
            || timestampingUncapped.isNull || deleteOnEmptyMinAgeSeconds.isNull
    }

    /// Whether nothing is asked for.
    var isEmpty: Bool {
        storageClass.isAbsent && retention.isAbsent && timestampingMode.isAbsent
            && timestampingUncapped.isAbsent && deleteOnEmptyMinAgeSeconds.isAbsent
    }
}

extension StreamConfigWish {
    /// A `StreamConfig` of a client, where it asks for one outside of a body. Errors: `bad_json`,
    /// `invalid`.
    package init(json: Bytes) throws(APIError) {
        let value = try ControlRequest.parse(json)
        self.init()
        if value.isNull { return }
        self = try StreamConfigFields(JSONFields(value), isPatch: false).wish
    }

    /// Every leaf as `config` has it.
    fileprivate init(explicit config: StreamConfig) {
        self.init()
        storageClass = config.storageClass
        retention = config.retention
        timestampingMode = config.timestampingMode
        timestampingUncapped = config.timestampingUncapped
        deleteOnEmptyMinAgeSeconds = config.deleteOnEmptyMinAgeSeconds
    }
}

/// A `BasinConfig` or a reconfiguration of one, as it came.
struct BasinConfigFields: Sendable {
    var defaultStreamConfig = StreamConfigFields.absent
    var streamCipher = Field<Cipher>.absent
    var createStreamOnAppend = Field<Bool>.absent
    var createStreamOnRead = Field<Bool>.absent

    init(_ fields: JSONFields, isPatch: Bool) throws(APIError) {
        switch try fields.fields("default_stream_config") {
        case .absent: break
        case .null: defaultStreamConfig = .null
        case .value(let inner):
            defaultStreamConfig = try StreamConfigFields(inner, isPatch: isPatch)
        }
        streamCipher = try fields.text("stream_cipher").map { (name) throws(APIError) in
            guard let cipher = Cipher(rawValue: name) else {
                throw fields.bad("stream_cipher", "must be aegis-256 or aes-256-gcm")
            }
            return cipher
        }
        createStreamOnAppend = try fields.flag("create_stream_on_append")
        createStreamOnRead = try fields.flag("create_stream_on_read")
        if streamCipher.value != nil {
            // Storing the wish would promise what nobody does yet.
            throw APIError(.notImplemented, "encryption of streams is not built yet")
        }
    }

    var config: BasinConfig { applied(to: BasinConfig()) }

    /// A flag that is `null` stays as it is.
    func applied(to current: BasinConfig) -> BasinConfig {
        var config = BasinConfig()
        config.defaultStreamConfig = defaultStreamConfig.applied(to: current.defaultStreamConfig)
        config.streamCipher = streamCipher.applied(to: current.streamCipher)
        config.createStreamOnAppend = createStreamOnAppend.value ?? current.createStreamOnAppend
        config.createStreamOnRead = createStreamOnRead.value ?? current.createStreamOnRead
        return config
    }
}
