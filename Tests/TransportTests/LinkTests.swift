// SPDX-License-Identifier: Apache-2.0

import Foundation
import Glibc
import Primitives
import RPC
import Synchronization
import Testing
import Transport

/// Links over both kinds of address, and the files of sockets.
@Suite(.serialized) struct LinkTests {
    @Test(arguments: Place.allCases)
    func aHalfCloseEndsTheLinkAfterItsBytes(_ place: Place) async throws {
        try await onLoop { loop in
            let network = try NIONetwork(loop: loop)
            let log = LinkLog()
            let listener = try await network.listen(place.address()) { $0.handler = log }
            let client = RawSocket(listener.address)
            #expect(client.connect())
            #expect(client.send("twelve bytes"))
            shutdown(client.file, Int32(SHUT_WR))
            #expect(await eventually(loop) { log.isClosed })
            #expect(log.received == 12)
            listener.close()
        }
    }

    @Test(arguments: Place.allCases)
    func aPeerThatVanishesIsNoticed(_ place: Place) async throws {
        try await onLoop { loop in
            let network = try NIONetwork(loop: loop)
            let log = LinkLog()
            var links: [any Link] = []
            let listener = try await network.listen(place.address()) { link in
                link.handler = log
                links.append(link)
            }
            do {
                let client = RawSocket(listener.address)
                #expect(client.connect())
                try #require(await eventually(loop) { links.count == 1 })
                // It goes with bytes that it has not read.
                links[0].write([Bytes([UInt8](repeating: 1, count: 8 << 20))])
                links[0].flush()
                #expect(links[0].unsentBytes > 0)
            }
            #expect(await eventually(loop) { log.isClosed })
            listener.close()
        }
    }

    @Test(arguments: Place.allCases)
    func whoDoesNotReadHoldsTheOtherBack(_ place: Place) async throws {
        try await onLoop { loop in
            let network = try NIONetwork(loop: loop)
            let log = LinkLog()
            var links: [any Link] = []
            let listener = try await network.listen(place.address()) { link in
                link.handler = log
                link.setReading(false)
                links.append(link)
            }
            let client = try await network.connect(listener.address, timeout: .seconds(60))
            client.handler = LinkLog()
            let count = 64 << 20
            client.write([Bytes([UInt8](repeating: 1, count: count))])
            client.flush()
            try #require(await eventually(loop) { links.count == 1 })
            await loop.sleep(.milliseconds(100))
            #expect(client.unsentBytes > count / 2)
            #expect(log.received < count / 2)
            links[0].setReading(true)
            #expect(await eventually(loop) { log.received == count && client.unsentBytes == 0 })
            client.close()
            #expect(await eventually(loop) { log.isClosed })
            listener.close()
        }
    }

    /// Nobody else may connect, at no moment, whatever the process's umask.
    @Test func aSocketIsItsOwnersFromTheStart() async throws {
        let address = Place.unix.address()
        let path = String(address.dropFirst("unix:".count))
        let watch = Watch(path)
        let before = umask(0)
        defer { umask(before) }
        try await onLoop { loop in
            let network = try NIONetwork(loop: loop)
            let end = loop.now + .seconds(60)
            var rounds = 0
            while rounds < 300 || !watch.hasSeen && loop.now < end {
                rounds += 1
                let listener = try await network.listen(address) { $0.close() }
                #expect(listener.address == address)
                #expect(mode(path) == S_IFSOCK | 0o600)
                listener.close()
                #expect(mode(path) == nil)
            }
        }
        #expect(watch.end() == [S_IFSOCK | 0o600])
    }

    @Test func whatADeadProcessLeftIsReplaced() async throws {
        let address = Place.unix.address()
        do {
            let dead = RawSocket(address)
            #expect(dead.listen())
        }
        try await onLoop { loop in
            let network = try NIONetwork(loop: loop)
            let log = LinkLog()
            let listener = try await network.listen(address) { $0.handler = log }
            let client = RawSocket(address)
            #expect(client.connect() && client.send("hello"))
            #expect(await eventually(loop) { log.received == 5 })
            #expect(mode(client.path) == S_IFSOCK | 0o600)
            listener.close()
            #expect(mode(client.path) == nil)
        }
    }

    @Test func whatIsNotADeadSocketIsLeftAlone() async throws {
        let address = Place.unix.address()
        let alive = RawSocket(address)
        #expect(alive.listen())
        defer { unlink(alive.path) }
        let file = alive.path + "-file"
        close(open(file, O_CREAT | O_WRONLY, 0o600))
        defer { unlink(file) }
        try await onLoop { loop in
            let network = try NIONetwork(loop: loop)
            func refusal(_ address: String) async -> String {
                do throws(NetworkError) {
                    _ = try await network.listen(address) { $0.close() }
                    return "none"
                } catch {
                    return error.description
                }
            }
            #expect(await refusal(address).hasSuffix("is in use: another process listens there"))
            #expect(await refusal("unix:\(file)").hasSuffix("is not a socket, and left alone"))
            #expect(await refusal("unix:/no/such/folder").contains("No such file"))
            #expect(await refusal("unix:relative").contains("is not host:port"))
        }
        let client = RawSocket(address)
        #expect(client.connect())
        #expect(mode(file) == S_IFREG | 0o600)
    }

    /// Each of several that find the same old file wants to replace it.
    @Test func ofSeveralOneListens() async throws {
        for _ in 0..<30 {
            let address = Place.unix.address()
            do {
                let dead = RawSocket(address)
                #expect(dead.listen())
            }
            let tries = Tries()
            let winners = await withTaskGroup(of: Int.self) { group in
                for _ in 0..<4 {
                    group.addTask {
                        let won = try? await onLoop { loop in
                            let network = try NIONetwork(loop: loop)
                            let listener = try? await network.listen(address) { $0.close() }
                            tries.count.withLock { $0 += 1 }
                            // The winner stays until everybody has tried.
                            #expect(await eventually(loop) { tries.count.withLock { $0 } == 4 })
                            if listener != nil {
                                let client = RawSocket(address)
                                #expect(client.connect())
                            }
                            listener?.close()
                            return listener == nil ? 0 : 1
                        }
                        return won ?? 0
                    }
                }
                return await group.reduce(0, +)
            }
            #expect(winners == 1)
        }
    }

    /// A file that is another's by now is not removed.
    @Test func onlyTheOwnFileIsRemoved() async throws {
        try await onLoop { loop in
            let network = try NIONetwork(loop: loop)
            let address = Place.unix.address()
            let first = try await network.listen(address) { $0.close() }
            let path = String(address.dropFirst("unix:".count))
            unlink(path)
            let second = try await network.listen(address) { $0.close() }
            first.close()
            #expect(mode(path) != nil)
            second.close()
            #expect(mode(path) == nil)
        }
    }

    @Test func pathsAreAsLongAsTheSystemTakes() async throws {
        try await onLoop { loop in
            let network = try NIONetwork(loop: loop)
            let start = Place.unix.address() + "-"
            let longest =
                start + String(repeating: "x", count: 107 + "unix:".utf8.count - start.utf8.count)
            let log = LinkLog()
            let listener = try await network.listen(longest) { $0.handler = log }
            let client = try await network.connect(longest, timeout: .seconds(60))
            client.handler = LinkLog()
            client.write([Bytes(utf8: "hello")])
            client.flush()
            #expect(await eventually(loop) { log.received == 5 })
            listener.close()
            let error = await #expect(throws: NetworkError.self) {
                _ = try await network.listen(longest + "y") { $0.close() }
            }
            #expect(error?.description.contains("at most 107") == true)
        }
    }
}

private final class Tries: Sendable {
    let count = Mutex(0)
}

/// A thread that sees which modes a path has, as often as it can.
private final class Watch: Sendable {
    private let state = Mutex((modes: Set<mode_t>(), isOver: false, hasEnded: false))

    init(_ path: String) {
        let watch = self
        Thread.detachNewThread {
            while !watch.state.withLock({ $0.isOver }) {
                guard let found = mode(path) else { continue }
                watch.state.withLock { _ = $0.modes.insert(found) }
            }
            watch.state.withLock { $0.hasEnded = true }
        }
    }

    var hasSeen: Bool { state.withLock { !$0.modes.isEmpty } }

    /// The modes that it saw.
    func end() -> Set<mode_t> {
        state.withLock { $0.isOver = true }
        while !state.withLock({ $0.hasEnded }) { usleep(1_000) }
        return state.withLock { $0.modes }
    }
}
