// SPDX-License-Identifier: Apache-2.0

package import Compression
package import HTTP
package import Primitives

/// Collects the whole body of a unary request, within a limit before and after decompression.
package enum BodyReader {
    /// A body that is not complete by then is given up.
    package static let waitNanoseconds: Nanoseconds = .seconds(60)
    /// A refused request's body is taken and dropped up to this size, so that the connection lives.
    static let discardBytesMax = 1 << 20
    private static let discardWaitNanoseconds: Nanoseconds = .seconds(5)

    /// Call in `serve`, before control returns to the loop. `then` is called exactly once, possibly
    /// before this returns, with the decompressed body or what is wrong with it: `malformed` for
    /// what does not decompress, `client_hangup` where the client went away. It may set the
    /// exchange's closures anew.
    package static func read(
        _ exchange: any HTTPExchange, bytesMax: Int, codec: Codec, loop: any Loop,
        malformed: APIError.Code = .badJSON,
        then: @escaping (Result<Bytes, APIError>) -> Void
    ) {
        do throws(APIError) {
            let coding = try coding(of: exchange.request)
            if let length = exchange.request.contentLength, length > bytesMax {
                throw tooLarge(bytesMax)
            }
            let body = Body(exchange, bytesMax: bytesMax) { result in
                then(
                    result.flatMap { bytes in
                        decompressed(bytes, coding, bytesMax, codec, malformed)
                    })
            }
            body.begin(loop)
        } catch {
            exchange.setReading(false)
            then(.failure(error))
        }
    }

    /// Answers `error`. A small body that is announced is taken first, and dropped: closing a
    /// connection with unread bytes may take the answer away from the client.
    static func refuse(_ exchange: any HTTPExchange, _ error: APIError, loop: any Loop) {
        guard let length = exchange.request.contentLength, (1...discardBytesMax).contains(length)
        else {
            exchange.fail(error)
            return
        }
        var count = 0
        var timer: Timer?
        func end() {
            timer?.cancel()
            exchange.onBody = nil
            exchange.onBodyEnd = nil
            exchange.onAbort = nil
            exchange.fail(error)
        }
        func giveUp() {
            exchange.setReading(false)
            end()
        }
        exchange.onBody = { bytes in
            count += bytes.count
            if count > discardBytesMax { giveUp() }
        }
        exchange.onBodyEnd = end
        exchange.onAbort = end
        timer = loop.after(discardWaitNanoseconds, giveUp)
    }

    private static func coding(of request: HTTPRequest) throws(APIError) -> Coding? {
        let name = request.header("content-encoding")?.lowercased() ?? "identity"
        switch name {
        case "identity", "": return nil
        case "x-gzip": return .gzip
        default:
            guard let coding = Coding(rawValue: name) else {
                throw APIError(.unsupportedCoding, "the content encoding must be gzip or zstd")
            }
            return coding
        }
    }

    private static func decompressed(
        _ bytes: Bytes, _ coding: Coding?, _ bytesMax: Int, _ codec: Codec,
        _ malformed: APIError.Code
    ) -> Result<Bytes, APIError> {
        guard let coding else { return .success(bytes) }
        do throws(DecompressionError) {
            return .success(try codec.decompress(bytes, coding, limit: bytesMax))
        } catch {
            switch error {
            case .malformed:
                return .failure(APIError(malformed, "the body is not valid \(coding.rawValue)"))
            case .tooLarge: return .failure(tooLarge(bytesMax))
            }
        }
    }

    fileprivate static func tooLarge(_ bytesMax: Int) -> APIError {
        APIError(.bodyTooLarge, "the body is larger than \(bytesMax) bytes")
    }
}

/// One body on its way in.
private final class Body {
    private let exchange: any HTTPExchange
    private let bytesMax: Int
    private var then: ((Result<Bytes, APIError>) -> Void)?
    /// A copy of what came: a small piece of it may be the only use of a large read buffer.
    private var body: ByteWriter?
    private var timer: Timer?

    init(
        _ exchange: any HTTPExchange, bytesMax: Int,
        then: @escaping (Result<Bytes, APIError>) -> Void
    ) {
        self.exchange = exchange
        self.bytesMax = bytesMax
        self.then = then
    }

    func begin(_ loop: any Loop) {
        exchange.onBody = { self.take($0) }
        exchange.onBodyEnd = { self.end(.success(self.body?.finish() ?? Bytes())) }
        exchange.onAbort = {
            self.end(.failure(APIError(.clientHangup, "the client went away")))
        }
        timer = loop.after(BodyReader.waitNanoseconds) {
            self.exchange.setReading(false)
            self.end(.failure(APIError(.requestTimeout, "the body did not arrive in time")))
        }
    }

    private func take(_ bytes: Bytes) {
        guard bytes.count <= bytesMax - (body?.count ?? 0) else {
            exchange.setReading(false)
            end(.failure(BodyReader.tooLarge(bytesMax)))
            return
        }
        if body == nil { body = ByteWriter(capacity: bytes.count) }
        body?.write(bytes)
    }

    private func end(_ result: Result<Bytes, APIError>) {
        guard let then else { return }
        self.then = nil
        timer?.cancel()
        exchange.onBody = nil
        exchange.onBodyEnd = nil
        exchange.onAbort = nil
        body = nil
        then(result)
    }
}

extension HTTPRequest {
    /// The announced length of the body, in bytes; nil where there is none.
    package var contentLength: Int? { header("content-length").flatMap { Int($0) } }

    /// Whether the content type is JSON: `application/json`, or `application/…+json`.
    package var hasJSONContent: Bool {
        guard let type = header("content-type")?.mediaType else { return false }
        guard type.hasPrefix("application/") else { return false }
        return type == "application/json" || type.hasSuffix("+json")
    }
}

extension String {
    /// The first media type that a header's value names: in lower case, without parameters.
    package var mediaType: String {
        let end = firstIndex { $0 == "," || $0 == ";" } ?? endIndex
        return self[..<end].trimmingBlanks.lowercased()
    }
}

extension Substring {
    /// Without blanks at both ends.
    package var trimmingBlanks: Substring {
        guard let first = firstIndex(where: { $0 != " " && $0 != "\t" }),
            let last = lastIndex(where: { $0 != " " && $0 != "\t" })
        else { return "" }
        return self[first...last]
    }
}
