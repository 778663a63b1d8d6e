// SPDX-License-Identifier: Apache-2.0

/// How a stream's timestamps come about.
package enum TimestampingMode: String, Sendable, Hashable, CaseIterable {
    case clientPrefer = "client-prefer"
    case clientRequire = "client-require"
    case arrival
}

package enum RetentionPolicy: Sendable, Hashable {
    /// Records become removable this many seconds after their arrival; more than 0.
    case age(seconds: UInt64)
    case infinite
}

/// A stream's configuration with every leaf resolved.
package struct StreamConfig: Sendable, Hashable {
    package var storageClass: String
    package var retention: RetentionPolicy
    package var timestampingMode: TimestampingMode
    /// Whether client timestamps may lie in the future.
    package var timestampingUncapped: Bool
    /// Delete the stream once it was empty for so many seconds; 0 for never.
    package var deleteOnEmptyMinAgeSeconds: UInt64

    /// What applies where neither the stream nor its basin says otherwise.
    package static let system = StreamConfig(
        storageClass: "express", retention: .age(seconds: 604_800), timestampingMode: .clientPrefer,
        timestampingUncapped: false, deleteOnEmptyMinAgeSeconds: 0)

    package init(
        storageClass: String, retention: RetentionPolicy, timestampingMode: TimestampingMode,
        timestampingUncapped: Bool, deleteOnEmptyMinAgeSeconds: UInt64
    ) {
        self.storageClass = storageClass
        self.retention = retention
        self.timestampingMode = timestampingMode
        self.timestampingUncapped = timestampingUncapped
        self.deleteOnEmptyMinAgeSeconds = deleteOnEmptyMinAgeSeconds
    }

    /// `wish` over `defaults` over the system's defaults, leaf by leaf.
    package init(resolving wish: StreamConfigWish, over defaults: StreamConfigWish) {
        let system = StreamConfig.system
        self.init(
            storageClass: wish.storageClass ?? defaults.storageClass ?? system.storageClass,
            retention: wish.retention ?? defaults.retention ?? system.retention,
            timestampingMode: wish.timestampingMode ?? defaults.timestampingMode
                ?? system.timestampingMode,
            timestampingUncapped: wish.timestampingUncapped ?? defaults.timestampingUncapped
                ?? system.timestampingUncapped,
            deleteOnEmptyMinAgeSeconds: wish.deleteOnEmptyMinAgeSeconds
                ?? defaults.deleteOnEmptyMinAgeSeconds ?? system.deleteOnEmptyMinAgeSeconds)
    }
}

/// A stream configuration as somebody asked for it: an unset leaf is nil.
package struct StreamConfigWish: Sendable, Hashable {
    package var storageClass: String?
    package var retention: RetentionPolicy?
    package var timestampingMode: TimestampingMode?
    package var timestampingUncapped: Bool?
    package var deleteOnEmptyMinAgeSeconds: UInt64?

    package init() {}

    package var isEmpty: Bool { self == StreamConfigWish() }
}

/// What encrypts a stream's records with the client's key.
package enum Cipher: String, Sendable, Hashable, CaseIterable {
    case aegis256 = "aegis-256"
    case aes256GCM = "aes-256-gcm"
}

/// A basin's configuration.
package struct BasinConfig: Sendable, Hashable {
    package var defaultStreamConfig = StreamConfigWish()
    package var streamCipher: Cipher?
    package var createStreamOnAppend = false
    package var createStreamOnRead = false

    package init() {}
}
