// SPDX-License-Identifier: Apache-2.0

import Glibc
import HTTP
import Primitives
import RPC
import Testing
import Transport

/// Lets no descriptor be made any more.
private func withoutDescriptors(_ body: () async -> Void) async {
    let kind = __rlimit_resource_t(RLIMIT_NOFILE.rawValue)
    var before = rlimit()
    getrlimit(kind, &before)
    let free = dup(0)
    close(free)
    var limit = before
    limit.rlim_cur = rlim_t(free)
    #expect(setrlimit(kind, &limit) == 0)
    await body()
    #expect(setrlimit(kind, &before) == 0)
}

private func cpuNanoseconds() -> Nanoseconds {
    var time = timespec()
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time)
    return Nanoseconds(time.tv_sec) * 1_000_000_000 + Nanoseconds(time.tv_nsec)
}

@Suite(.serialized) struct SocketTests {
    /// A server that cannot accept rests meanwhile, and accepts once it can.
    @Test func aServerWithoutDescriptorsRests() async throws {
        try await withSite { loop, _, address, _ in
            // Made before the process runs out of descriptors.
            let client = RawSocket(address)
            var used: Nanoseconds = 0
            await withoutDescriptors {
                #expect(client.connect())
                let begin = cpuNanoseconds()
                await loop.sleep(.milliseconds(500))
                used = cpuNanoseconds() - begin
            }
            #expect(used < .milliseconds(100), "\(used) ns")
            #expect(client.send("GET /hello HTTP/1.1\r\nhost: h\r\n\r\n"))
            var answer = ""
            #expect(
                await eventually(loop) {
                    answer += client.received()
                    return answer.hasSuffix("hello")
                })
        }
    }

    /// What waits for the service does not keep what the socket was read into.
    @Test func smallBodiesThatWaitOwnTheirBytes() async throws {
        try await withSite { loop, site, address, _ in
            let client = try await H2Client(loop, address)
            client.request(1, "POST", "/stall", ends: false)
            client.send(0, 0, 1, Bytes(utf8: "abc"))
            client.send(6, 0, 0, Bytes(utf8: "pingping"))
            #expect(await eventually(loop) { client.has(6, 0) })
            #expect(site.bodyPieces == 0)
            site.held[0].setReading(true)
            #expect(await eventually(loop) { site.lastBody == Bytes(utf8: "abc") })
            #expect(site.lastBody.owner is ByteStorage)
        }
    }
}
