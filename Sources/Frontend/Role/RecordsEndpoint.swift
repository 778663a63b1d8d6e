// SPDX-License-Identifier: Apache-2.0

package import HTTP
internal import Metadata
internal import Primitives
internal import Records

/// What a request wants of a stream's records.
package enum RecordsOperation: Sendable {
    case checkTail, read, append
}

/// Where requests for records enter: reads their headers and query, finds the stream, and hands
/// them to whoever serves their kind.
package final class RecordsEndpoint {
    let path: DataPath

    package init(world: FrontendWorld, limits: FrontendLimits, cell: Cell) {
        path = DataPath(world: world, limits: limits, cell: cell)
    }

    /// Serves a request for the records of a stream, whose names are valid. Call in the service's
    /// `serve`, before control returns to the loop.
    package func serve(
        _ exchange: any HTTPExchange, basin: String, stream: String, operation: RecordsOperation
    ) {
        do throws(APIError) {
            let headers = try RecordsHeaders(exchange.request)
            switch operation {
            case .checkTail: checkTail(exchange, basin, stream, headers)
            case .read: try read(exchange, basin, stream, headers)
            case .append: append(exchange, basin, stream, headers)
            }
        } catch {
            BodyReader.refuse(exchange, error, loop: path.world.loop)
        }
    }

    /// Begins to keep the cell's terms.
    package func start() { path.terms.start() }

    /// Sends every session's client elsewhere, once what it was promised is done.
    package func drain() {
        path.drain()
    }

    // MARK: Kinds

    private func checkTail(
        _ exchange: any HTTPExchange, _ basin: String, _ stream: String, _ headers: RecordsHeaders
    ) {
        let named = NamedStream(
            cell: path.cell, basin: basin, name: stream, headers: headers, use: .read,
            needsKey: false)
        prepare(exchange, named) { [path] lookup, _ in
            path.world.loop.spawn {
                do throws(APIError) {
                    let tail = try await Self.tail(path, named, lookup)
                    var json = JSONWriter()
                    json.beginObject()
                    json.name("tail")
                    json.write(tail)
                    json.endObject()
                    exchange.send(.json(200, json.finish()))
                } catch {
                    exchange.fail(error)
                }
            }
        }
    }

    private static func tail(
        _ path: DataPath, _ named: NamedStream, _ lookup: StreamLookup
    ) async throws(APIError) -> StreamPosition {
        do throws(APIError) {
            return try await ReadPlanning(path: path, stream: lookup.stream).tail(lookup)
        } catch {
            let lookup = try await named.findAgain(after: error)
            return try await ReadPlanning(path: path, stream: lookup.stream).tail(lookup)
        }
    }

    private func read(
        _ exchange: any HTTPExchange, _ basin: String, _ stream: String, _ headers: RecordsHeaders
    ) throws(APIError) {
        let request = exchange.request
        let sink: any ReadSink
        var query: ReadQuery
        if MediaType(request.header("content-type")) == .session {
            sink = SessionReadSink(exchange)
            query = try ReadQuery(request.query)
        } else {
            switch MediaType(request.header("accept")) {
            case .events:
                sink = EventReadSink(exchange, format: headers.format, loop: path.world.loop)
                // What is wrong with a header is told before what is wrong with the query.
                var unresumed = ReadQuery()
                let id = request.header("last-event-id")
                if let id { try unresumed.resume(behind: id) }
                query = try ReadQuery(request.query)
                if let id { try query.resume(behind: id) }
            case .protobuf:
                sink = UnaryReadSink(exchange, format: nil)
                query = try ReadQuery(request.query).cappedForUnary()
            case .session, .other:
                sink = UnaryReadSink(exchange, format: headers.format)
                query = try ReadQuery(request.query).cappedForUnary()
            }
        }
        let named = NamedStream(
            cell: path.cell, basin: basin, name: stream, headers: headers, use: .read)
        prepare(exchange, named) { [path, query] lookup, early in
            _ = ReadSession(
                path, exchange, named, lookup: lookup, query: query, sink: sink,
                arrived: early.arrived)
        }
    }

    private func append(
        _ exchange: any HTTPExchange, _ basin: String, _ stream: String, _ headers: RecordsHeaders
    ) {
        let named = NamedStream(
            cell: path.cell, basin: basin, name: stream, headers: headers, use: .append)
        guard MediaType(exchange.request.header("content-type")) == .session else {
            return AppendUnary(path, exchange, named).begin()
        }
        exchange.setReading(false)
        prepare(exchange, named) { [path] lookup, early in
            _ = AppendSession(path, exchange, named, lookup: lookup, early: early)
        }
    }

    /// Finds the stream, then goes on, unless the client has left.
    private func prepare(
        _ exchange: any HTTPExchange, _ named: NamedStream,
        then: @escaping (StreamLookup, EarlyBody) -> Void
    ) {
        let early = EarlyBody(
            exchange, arrived: path.world.loop.now, keepsBody: named.use == .append)
        path.world.loop.spawn {
            do throws(APIError) {
                let lookup = try await named.find()
                if !early.isGone { then(lookup, early) }
            } catch {
                if !early.isGone { exchange.fail(error) }
            }
        }
    }
}

/// The media types that choose how records travel; the first one that a header names counts.
enum MediaType: Equatable {
    case session, protobuf, events, other

    init(_ header: String?) {
        switch header?.mediaType {
        case "s2s/proto": self = .session
        case "application/protobuf", "application/x-protobuf": self = .protobuf
        case "text/event-stream": self = .events
        default: self = .other
        }
    }
}
