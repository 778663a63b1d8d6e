// SPDX-License-Identifier: Apache-2.0

import FrontendRole
import HTTP
import Metadata
import ObjectStorage
import Observability
import Primitives
import RPC
import Records
import TestSupport
import Testing

/// A frontend whose control plane is asked by a test, over metadata in memory.
final class ControlBench {
    let loop = ManualLoop()
    let metadata: MemoryMetadata
    let calls: RefreshCalls
    let role: FrontendRole
    static let basin = "basin-0001"

    init(rootToken: String? = nil, starts: Bool = true) {
        let loop = loop
        metadata = MemoryMetadata { loop.wallMilliseconds }
        calls = RefreshCalls(loop)
        let world = FrontendWorld(
            loop: loop, metadata: metadata, calls: calls, buckets: [],
            random: .seeded(1), log: .silent, metrics: Metrics(role: "frontend"))
        role = FrontendRole(world: world, limits: FrontendLimits(rootToken: rootToken))
        if starts { role.start() }
        loop.settle()
    }

    /// Begins a request; its body is whole unless `ends` is false.
    func begin(
        _ method: String, _ target: String, _ body: Bytes? = nil,
        headers: [(name: String, value: String)] = [], ends: Bool = true
    ) -> FakeExchange {
        let exchange = FakeExchange(method, target, headers: headers)
        exchange.serve(by: role)
        if let body { exchange.feed(body) }
        if ends { exchange.endBody() }
        loop.settle()
        return exchange
    }

    /// A request with a JSON body, to its end.
    @discardableResult
    func ask(
        _ method: String, _ target: String, _ json: String? = nil, basin: String? = basin,
        token: String? = nil
    ) -> FakeExchange {
        var headers: [(name: String, value: String)] = []
        if json != nil { headers.append(("content-type", "application/json")) }
        if let basin { headers.append(("s2-basin", basin)) }
        if let token { headers.append(("s2-request-token", token)) }
        let exchange = begin(method, target, json.map { Bytes(utf8: $0) }, headers: headers)
        loop.run { exchange.isFinished }
        return exchange
    }

    func createBasin(_ config: String = "{}", name: String = basin) {
        ask("POST", "/v1/basins", #"{"basin":"\#(name)","config":\#(config)}"#)
    }

    func createStream(_ name: String = "s", _ config: String = "{}") {
        ask("POST", "/v1/streams", #"{"stream":"\#(name)","config":\#(config)}"#)
    }

    /// Runs an operation on the metadata at once.
    func direct<Value: Sendable>(_ operation: @escaping () async throws -> Value) throws -> Value {
        var result: Result<Value, any Error>?
        loop.spawn {
            do { result = .success(try await operation()) } catch { result = .failure(error) }
        }
        loop.settle()
        return try #require(result).get()
    }

    /// Gives the stream an owner.
    func claim(_ stream: String = "s") throws {
        let metadata = metadata
        _ = try direct {
            let registration = ChannelRegistration(
                storageClass: "express", zone: "z", address: "channel:1")
            let channel = try await metadata.registerChannel(registration)
            let lookup = try await metadata.stream(basin: Self.basin, name: stream)
            return try await metadata.claim(try #require(lookup).stream.id, channel: channel)
        }
    }
}

extension FakeExchange {
    var json: JSONValue? { try? JSON.parse(body) }
    var code: String? { json?.object?["code"]?.string }
    func member(_ name: String) -> JSONValue? { json?.object?[name] }
    var provisionResult: String? { responseHeader("s2-provision-result") }

    /// A failure as the API describes it: the code, its status, and a message.
    func expectFailure(
        _ code: String, _ status: Int, sourceLocation: SourceLocation = #_sourceLocation
    ) {
        #expect(self.status == status, "\(bodyText)", sourceLocation: sourceLocation)
        #expect(self.code == code, "\(bodyText)", sourceLocation: sourceLocation)
        #expect(member("message")?.string?.isEmpty == false, sourceLocation: sourceLocation)
        #expect(
            responseHeader("content-type") == "application/json", sourceLocation: sourceLocation)
        #expect(isFinished, sourceLocation: sourceLocation)
    }
}

/// A channel that only hears refreshes, and answers each with `status`.
final class RefreshCalls: CallClient {
    let loop: ManualLoop
    var status = Status.ok
    private(set) var requests: [RefreshRequest] = []

    init(_ loop: ManualLoop) { self.loop = loop }

    func call(
        _ address: String, _ method: RPC.Method, _ payload: Bytes, deadline: Nanoseconds?
    ) -> any Call {
        if method == .refresh, let request = try? RefreshRequest(payload) {
            requests.append(request)
        }
        let call = FakeCall(method, loop)
        call.end(method == .refresh ? status : .unavailable, Bytes())
        return call
    }
}
