// SPDX-License-Identifier: Apache-2.0

internal import BgTaskRole
internal import Shared

extension BgTaskLimits {
    /// Ends the process where settings make no sense together.
    static func check(_ settings: Settings) {
        let orphanWaitMin = orphanNanosecondsMin(putting: settings[.storeTimeout])
        guard settings[.orphanWait] < orphanWaitMin else { return }
        Program.fail(
            "bgtask: \(Setting.orphanWait.option) must be at least ten times "
                + "\(Setting.storeTimeout.option), which is \(settings[.storeTimeout] / 1_000_000)"
                + " ms: a flush may take as long before it makes its objects known",
            code: 2)
    }

    init(_ settings: Settings) {
        self.init()
        condemnedNanoseconds = settings[.condemnedWait]
        orphanNanoseconds = settings[.orphanWait]
        sealNanoseconds = settings[.sealWait]
        passNanoseconds = settings[.taskInterval]
        sweepNanoseconds = settings[.sweepInterval]
        leaseNanoseconds = settings[.taskLease]
        leaseMarginNanoseconds = settings[.taskLease] / 6
        partitions = settings[.taskPartitions]
        requestsPerSecond = settings[.taskRequests]
        bytesPerSecond = settings[.taskBytes]
    }
}

extension Host {
    /// The connections of a worker.
    func taskCalls() throws -> RPCClient {
        let calls = RPCClient(
            network: try network(), loop: loop,
            identity: PeerIdentity(role: .bgtask, id: random.next()), random: random)
        count(calls, latencies: [.refresh])
        return calls
    }

    func worker(_ buckets: [Bucket], _ calls: RPCClient) -> BgTaskRole {
        BgTaskRole(
            world: BgTaskWorld(
                loop: loop, metadata: metadata, buckets: buckets, calls: calls, random: random,
                log: log, metrics: metrics, terms: metadata),
            limits: BgTaskLimits(settings))
    }
}
