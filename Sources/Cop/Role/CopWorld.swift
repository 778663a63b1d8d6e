// SPDX-License-Identifier: Apache-2.0

package import Metadata
package import ObjectStorage
package import Observability
package import Primitives

/// All that a cop reaches of the outside, everything confined to one loop.
package struct CopWorld {
    package let loop: any Loop
    package let metadata: any MetadataStore
    package let buckets: [Bucket]
    package let random: RandomSource
    package let log: EventLog
    package let metrics: Metrics
    package let provisioner: any Provisioner

    package init(
        loop: any Loop, metadata: any MetadataStore, buckets: [Bucket], random: RandomSource,
        log: EventLog, metrics: Metrics, provisioner: any Provisioner
    ) {
        precondition(!buckets.isEmpty, "a cell has at least one bucket")
        self.loop = loop
        self.metadata = metadata
        self.buckets = buckets
        self.random = random
        self.log = log
        self.metrics = metrics
        self.provisioner = provisioner
    }
}

/// A cop's settings, each with its default.
package struct CopLimits: Sendable {
    /// How many processes of each kind run on this host.
    package var channels = 0
    package var cacheys = 0
    package var bgtasks = 0
    package var frontends = 0

    func count(_ kind: ProcessKind) -> Int {
        switch kind {
        case .channel: channels
        case .cachey: cacheys
        case .bgtask: bgtasks
        case .frontend: frontends
        }
    }

    /// How long a lease holds without a renewal, and how much longer cop waits by its own clock.
    package var leaseNanoseconds: Nanoseconds = .seconds(3)
    package var leaseMarginNanoseconds: Nanoseconds = .seconds(1)
    /// How often cop renews its own lease and looks at the others.
    package var pollNanoseconds: Nanoseconds = .milliseconds(500)
    /// The waits between two tries to recover a channel; they go on for ever.
    package var recoveryBackoff = Backoff(
        first: .milliseconds(200), delayMax: .seconds(10), triesMax: .max, budget: .max)
    /// The tries of one request to the store within one step of a recovery.
    package var storeBackoff = Backoff()
    /// Bytes of chunks that a recovery holds at once; one chunk may overshoot it.
    package var recoveryBytesMax = 64 << 20
    /// Bytes of one segment object; one run of records may overshoot it.
    package var segmentObjectBytesMax = 32 << 20
    /// Streamlets in one flush.
    package var flushPartsMax = 256
    /// Channels recovered at once.
    package var recoveriesMax = 4
    /// The waits before a process that ended is started again.
    package var restartBackoff = Backoff(
        first: .milliseconds(200), delayMax: .seconds(10), triesMax: .max, budget: .max)
    /// A process that ran this long starts again with the first wait.
    package var steadyNanoseconds: Nanoseconds = .seconds(30)
    /// How long processes may take to drain before they are killed, each kind in turn.
    package var drainNanoseconds: Nanoseconds = .seconds(20)
    /// How long cop's own drain may take: all kinds, and then the lease.
    package var drainAllNanoseconds: Nanoseconds {
        drainNanoseconds * Nanoseconds(ProcessKind.allCases.count) + .seconds(15)
    }
    @MutantSetting package var mutant: CopMutant?

    package init() {}
}

/// Bugs that are known to lose, fork or expose data, for the simulator.
package enum CopMutant: String, Sendable, CaseIterable {
    /// Recovery takes the first absent slot for the end of a log, and puts no seal there.
    case sealSkipped
    /// A seal is put in the first slot that is not flushed, over whatever is there.
    case sealForced
    /// A seal says of itself that it stands one slot further on.
    case sealMislabelled
}
