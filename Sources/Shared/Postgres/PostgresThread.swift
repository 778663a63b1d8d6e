// SPDX-License-Identifier: Apache-2.0

internal import CSupport
internal import Glibc
internal import Primitives

/// The driver's thread: hands statements to idle connections, and waits for something to happen.
final class PostgresThread {
    private let inbox: StatementInbox
    private let options: PostgresOptions
    private let connections: [PostgresConnection]
    private let random = RandomSource.system()
    private let backoff = Backoff(
        first: .milliseconds(20), delayMax: .seconds(1), triesMax: .max, budget: .max)

    private var queue: [Job] = []
    /// Connects that failed since the last that succeeded.
    private var connectFailures = 0
    private var connectFailure = "no connection yet"
    private var nextConnectAt: Nanoseconds = 0
    private let serverCount: Int
    /// Where to connect to: the next one once a connect has failed.
    private var server = 0

    private init(inbox: StatementInbox, conninfo: String, options: PostgresOptions) {
        self.inbox = inbox
        self.options = options
        let servers = Conninfo(conninfo, options).servers
        serverCount = servers.count
        connections = (0..<options.connectionsMax).map { _ in
            PostgresConnection(servers: servers, options: options)
        }
    }

    static func start(inbox: StatementInbox, conninfo: String, options: PostgresOptions) {
        // The object is made here and touched by the new thread only.
        let thread = PostgresThread(inbox: inbox, conninfo: conninfo, options: options)
        var id = pthread_t()
        let status = pthread_create(
            &id, nil,
            { argument in
                if let argument {
                    Unmanaged<PostgresThread>.fromOpaque(argument).takeRetainedValue().run()
                }
                return nil
            }, Unmanaged.passRetained(thread).toOpaque())
        precondition(status == 0, "the operating system gave no thread")
        pthread_detach(id)
    }

    private func run() {
        while true {
            let (jobs, isStopped) = inbox.take()
            queue.append(contentsOf: jobs)
            if isStopped { break }
            let now = millrace_boottime_nanoseconds()
            expire(now)
            dispatch(now)
            wait(now)
        }
        stop()
    }

    private func stop() {
        for connection in connections { connection.close("the driver has stopped") }
        for job in queue {
            let failure = PostgresFailure(.unavailable, "the driver has stopped")
            job.waiter.resume(returning: .failure(failure))
        }
        inbox.release(queue.count)
        queue = []
    }

    private func expire(_ now: Nanoseconds) {
        for connection in connections where connection.deadline <= now {
            if connection.isConnecting { noteConnectFailure(of: connection, "timed out", now) }
            connection.close("no answer in time")
        }
        let expired = queue.filter { $0.deadline <= now }
        if expired.isEmpty { return }
        queue.removeAll { $0.deadline <= now }
        inbox.release(expired.count)
        let failure = PostgresFailure(
            .unavailable, "no connection became free in time; the last failure: \(connectFailure)")
        for job in expired { job.waiter.resume(returning: .failure(failure)) }
    }

    private func dispatch(_ now: Nanoseconds) {
        var sent = 0
        for connection in connections where sent < queue.count && connection.isIdle {
            connection.start(queue[sent])
            sent += 1
        }
        if sent > 0 {
            queue.removeFirst(sent)
            inbox.release(sent)
        }
        var missing = queue.count - connections.count { $0.isConnecting }
        for connection in connections where missing > 0 && connection.isClosed {
            guard now >= nextConnectAt else { break }
            if let failure = connection.connect(now, server: server) {
                noteConnectFailure(of: connection, failure, now)
            }
            missing -= 1
        }
    }

    private func noteConnectFailure(
        of connection: PostgresConnection, _ message: String, _ now: Nanoseconds
    ) {
        // Of several attempts at once, the first that fails is the one to move on.
        if connection.server == server { server = (server + 1) % serverCount }
        connectFailure = message
        connectFailures += 1
        let delay = backoff.delay(afterTries: connectFailures, elapsed: 0, random: random.next())
        nextConnectAt = now + (delay ?? .seconds(1))
    }

    private func wait(_ now: Nanoseconds) {
        var watched: [pollfd] = [pollfd(fd: inbox.wakeup, events: Int16(POLLIN), revents: 0)]
        for connection in connections { watched.append(connection.watched) }

        var until = connections.reduce(Nanoseconds.max) { min($0, $1.deadline) }
        until = queue.reduce(until) { min($0, $1.deadline) }
        if !queue.isEmpty, nextConnectAt > now, connections.contains(where: \.isClosed) {
            until = min(until, nextConnectAt)
        }
        // Rounded up, so that whatever is waited for is due afterwards. An hour at most.
        let milliseconds = min(max(0, until - now), .seconds(3_600)) / 1_000_000 + 1
        guard poll(&watched, nfds_t(watched.count), Int32(milliseconds)) > 0 else { return }

        if watched[0].revents != 0 { millrace_eventfd_clear(inbox.wakeup) }
        for (connection, entry) in zip(connections, watched.dropFirst()) where entry.revents != 0 {
            let wasConnecting = connection.isConnecting
            if let failure = connection.advance(entry.revents), wasConnecting {
                noteConnectFailure(of: connection, failure, millrace_boottime_nanoseconds())
            } else if wasConnecting, connection.isIdle {
                connectFailures = 0
            }
        }
    }
}
