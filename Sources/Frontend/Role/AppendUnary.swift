// SPDX-License-Identifier: Apache-2.0

internal import HTTP
internal import Metadata
internal import Primitives
internal import RPC
internal import Records

/// One append in one request.
///
/// Whoever leaves before the body is complete asked for nothing. Once the batch was issued it goes
/// on without its client. It counts for a budget all the way: as a body until it is issued, as a
/// batch in flight until the channel has answered.
final class AppendUnary {
    private let path: DataPath
    private let exchange: any HTTPExchange
    private let named: NamedStream
    private let isProtobuf: Bool
    private let answersProtobuf: Bool
    /// What it holds of the budget of bodies.
    private var bodyBytes = 0

    init(
        _ path: DataPath, _ exchange: any HTTPExchange, _ named: NamedStream
    ) {
        self.path = path
        self.exchange = exchange
        self.named = named
        isProtobuf = MediaType(exchange.request.header("content-type")) == .protobuf
        answersProtobuf = MediaType(exchange.request.header("accept")) == .protobuf
    }

    /// What a body counts for whose length is not announced: more than a batch in JSON takes.
    private static let unannouncedBytes = 2 << 20
    /// What a request counts for besides its bytes: the least ones take far more.
    private static let requestBytes = 1_024

    func begin() {
        let bodyBytesMax = path.limits.bodyBytesMax
        let announced = exchange.request.contentLength ?? Self.unannouncedBytes
        do throws(APIError) {
            try hold(min(max(announced, 0), bodyBytesMax))
        } catch {
            return BodyReader.refuse(exchange, error, loop: path.world.loop)
        }
        BodyReader.read(
            exchange, bytesMax: bodyBytesMax, codec: path.codec, loop: path.world.loop,
            malformed: isProtobuf ? .badProto : .badJSON
        ) { [self] body in
            do throws(APIError) {
                let batch = try prepare(try body.get())
                try hold(batch.0.count)
                append(batch)
            } catch {
                letGo()
                exchange.fail(error)
            }
        }
    }

    /// Counts as `count` bytes from now on.
    private func hold(_ count: Int) throws(APIError) {
        let more = count + Self.requestBytes - bodyBytes
        if more > 0 { try path.budget.takeBody(more) } else { path.budget.giveBackBody(-more) }
        bodyBytes += more
    }

    private func letGo() {
        path.budget.giveBackBody(bodyBytes)
        bodyBytes = 0
    }

    private func prepare(_ body: Bytes) throws(APIError) -> (Bytes, PreparedBatch.Head) {
        do throws(AppendInputError) {
            if isProtobuf {
                let room = body.count + body.count / 4 + 64
                var writer = ByteWriter(capacity: room)
                let head = try AppendInputDecoder.decode(body, into: &writer)
                return (writer.finish(room: room), head)
            }
        } catch {
            switch error {
            case .malformed: throw APIError(.badProto, error.description)
            case .invalid: throw APIError(.invalid, error.description)
            }
        }
        guard exchange.request.hasJSONContent else {
            throw APIError(
                .badJSON, "the content type must be application/json or application/protobuf")
        }
        let batch = try AppendJSON.decode(body, named.headers.format)
        return (batch.encoded(), batch.head)
    }

    private func append(_ batch: (message: Bytes, head: PreparedBatch.Head)) {
        path.world.loop.spawn { [self] in
            do throws(APIError) {
                try issue(batch.message, batch.head, try await named.find())
                letGo()
            } catch {
                letGo()
                exchange.fail(error)
            }
        }
    }

    private func issue(
        _ message: Bytes, _ head: PreparedBatch.Head, _ lookup: StreamLookup
    ) throws(APIError) {
        let pipe = AppendPipe(path, named, lookup: lookup, waitsOut: false)
        do throws(APIError) {
            try pipe.admit()
        } catch {
            pipe.close()
            throw error
        }
        pipe.onAcks = { [self] replies in
            for reply in replies { answer(AppendAck(reply)) }
        }
        pipe.onFailure = { [self] in exchange.fail($0) }
        pipe.submit(message, head)
        pipe.close()
    }

    private func answer(_ ack: AppendAck) {
        guard answersProtobuf else { return exchange.send(.json(200, ack.json)) }
        let body = ack.encoded()
        exchange.respond(
            200,
            [("content-type", "application/protobuf"), ("content-length", "\(body.count)")])
        exchange.write([body])
        exchange.finish()
    }
}
