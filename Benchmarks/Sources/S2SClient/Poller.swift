// SPDX-License-Identifier: Apache-2.0

internal import Glibc

/// What went wrong at the client's end or was reported by the server.
package struct ClientError: Error, CustomStringConvertible {
    package let description: String
    package init(_ description: String) { self.description = description }
}

/// Nanoseconds of the monotonic clock.
package var monotonicNanoseconds: Int64 {
    var time = timespec()
    clock_gettime(CLOCK_MONOTONIC, &time)
    return Int64(time.tv_sec) * 1_000_000_000 + Int64(time.tv_nsec)
}

/// A socket that a poller serves.
package protocol Pollable: AnyObject {
    var descriptor: Int32 { get }
    var wantsToWrite: Bool { get }
    /// Writes what was collected during the turn.
    func flush()
    func readable()
}

/// Serves sockets on the thread that calls it. Everything of this library is confined to that
/// thread, and callbacks run inside of `turn`.
package final class Poller {
    private var members: [any Pollable] = []
    private var watched: [pollfd] = []

    package init() {}

    package func add(_ member: any Pollable) { members.append(member) }

    package func remove(_ member: any Pollable) { members.removeAll { $0 === member } }

    /// Sends what is pending, then waits for something to come, at most until `deadline`.
    package func turn(until deadline: Int64) {
        for member in members { member.flush() }
        watched.removeAll(keepingCapacity: true)
        for member in members {
            let events = POLLIN | (member.wantsToWrite ? POLLOUT : 0)
            watched.append(
                pollfd(fd: member.descriptor, events: Int16(events), revents: 0))
        }
        // In whole milliseconds, rounded up: a turn may end that much late, and never spins.
        let left = max(0, deadline - monotonicNanoseconds)
        let milliseconds = Int32(min(left / 1_000_000 + (left % 1_000_000 > 0 ? 1 : 0), 60_000))
        guard poll(&watched, nfds_t(watched.count), milliseconds) > 0 else { return }
        for (member, state) in zip(members, watched) {
            if state.revents & Int16(POLLOUT) != 0 { member.flush() }
            if state.revents & Int16(POLLIN | POLLHUP | POLLERR) != 0 { member.readable() }
        }
    }

    /// Takes turns until `condition` holds.
    package func wait(
        _ what: String, seconds: Double = 30, until condition: () -> Bool
    ) throws(ClientError) {
        let deadline = monotonicNanoseconds + Int64(seconds * 1e9)
        while !condition() {
            guard monotonicNanoseconds < deadline else {
                throw ClientError("\(what): nothing within \(seconds) s")
            }
            turn(until: deadline)
        }
    }
}

/// A non-blocking TCP socket with what is to go out on it.
package final class Socket {
    package let descriptor: Int32
    private var out: [UInt8] = []
    private var sent = 0

    package init(host: String, port: UInt16) throws(ClientError) {
        descriptor = socket(AF_INET, Int32(SOCK_STREAM.rawValue), 0)
        guard descriptor >= 0 else { throw ClientError("socket: errno \(errno)") }
        var address = sockaddr_in()
        address.sin_family = sa_family_t(AF_INET)
        address.sin_port = port.bigEndian
        guard inet_pton(AF_INET, host, &address.sin_addr) == 1 else {
            throw ClientError("\(host) is not an IPv4 address")
        }
        let result = withUnsafePointer(to: &address) {
            $0.withMemoryRebound(to: sockaddr.self, capacity: 1) {
                connect(descriptor, $0, socklen_t(MemoryLayout<sockaddr_in>.size))
            }
        }
        guard result == 0 else { throw ClientError("\(host):\(port): errno \(errno)") }
        var on: Int32 = 1
        setsockopt(
            descriptor, Int32(IPPROTO_TCP), TCP_NODELAY, &on, socklen_t(MemoryLayout<Int32>.size))
        _ = fcntl(descriptor, F_SETFL, O_NONBLOCK)
    }

    deinit { close(descriptor) }

    package var wantsToWrite: Bool { sent < out.count }

    package func write(_ bytes: some Sequence<UInt8>) { out.append(contentsOf: bytes) }

    package func write(_ bytes: UnsafeRawBufferPointer) { out.append(contentsOf: bytes) }

    /// Writes what the network takes; false once the connection is broken.
    package func flush() -> Bool {
        while sent < out.count {
            let count = out.withUnsafeBytes {
                send(descriptor, $0.baseAddress! + sent, $0.count - sent, Int32(MSG_NOSIGNAL))
            }
            guard count > 0 else {
                if errno == EINTR { continue }
                if errno == EAGAIN { return compact() }
                return false
            }
            sent += count
        }
        out.removeAll(keepingCapacity: true)
        sent = 0
        return true
    }

    private func compact() -> Bool {
        if sent > 4 << 20 {
            out.removeFirst(sent)
            sent = 0
        }
        return true
    }

    /// How many bytes came: 0 for none now, nil at the end.
    package func read(into room: UnsafeMutableRawBufferPointer) -> Int? {
        while true {
            let count = recv(descriptor, room.baseAddress, room.count, 0)
            if count > 0 { return count }
            if count == 0 { return nil }
            if errno == EINTR { continue }
            return errno == EAGAIN ? 0 : nil
        }
    }
}
