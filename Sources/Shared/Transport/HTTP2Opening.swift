// SPDX-License-Identifier: Apache-2.0

internal import NIOCore
internal import NIOHTTP2

/// What a client of HTTP/2 is told at the start.
struct HTTP2Terms {
    let streamsMax: Int
    let streamWindowBytes: Int
    let headBytesMax: Int
    static let frameBytesMax = 256 << 10

    init(_ settings: HTTPSettings) {
        streamsMax = settings.streamsMax
        streamWindowBytes = settings.streamWindowBytes
        headBytesMax = settings.headBytesMax
    }

    /// Parameters of SETTINGS, by their numbers.
    private func parameters(streamsMax: Int) -> [(number: Int, value: Int)] {
        [(3, streamsMax), (4, streamWindowBytes), (5, Self.frameBytesMax), (6, headBytesMax)]
    }

    /// What NIO holds a client to: as many streams again as the client is told, before the
    /// connection ends. The connection refuses those between one by one.
    var enforced: HTTP2Settings {
        parameters(streamsMax: streamsMax * 2).map {
            HTTP2Setting(parameter: .init(extensionSetting: $0.number), value: $0.value)
        }
    }

    /// The SETTINGS frame that the client gets.
    func write(to buffer: inout ByteBuffer) {
        let parameters = parameters(streamsMax: streamsMax)
        buffer.writeBytes([0, 0, UInt8(parameters.count * 6), HTTP2Opening.settingsKind, 0])
        buffer.writeInteger(UInt32(0))
        for (number, value) in parameters {
            buffer.writeInteger(UInt16(number))
            buffer.writeInteger(UInt32(value))
        }
    }
}

/// Stands between the socket and NIO's handler, and settles at once what the client may do.
///
/// NIO holds a client to its settings once the client has acknowledged them, and until then to
/// bounds of its own: the hundred-and-first stream ends the connection. The protocol knows no such
/// bound before the acknowledgement, and ours are all wider than those that a client begins with.
/// So NIO hears an acknowledgement right behind the client's first frame, and the client's own is
/// left out. NIO also ends the connection for a single stream too many; it is told of more than
/// the client is. What it gets of frames goes through `HTTP2DataFrames`.
final class HTTP2Opening: ChannelDuplexHandler {
    typealias InboundIn = ByteBuffer
    typealias InboundOut = ByteBuffer
    typealias OutboundIn = IOData
    typealias OutboundOut = IOData

    fileprivate static let settingsKind: UInt8 = 4
    private static let frameHeadBytes = 9
    private static let prefaceBytes = 24
    private static let acknowledgement: [UInt8] = [0, 0, 0, settingsKind, 1, 0, 0, 0, 0]

    private enum Phase {
        /// Of the preface or the first frame, so many bytes are to come.
        case preface(Int)
        case firstFrame
        case firstSettings(Int)
        /// The client has not acknowledged; so many bytes of the present frame are to come.
        case frames(Int)
        case open
        case closed
    }
    private var phase = Phase.preface(HTTP2Opening.prefaceBytes)
    private var terms: HTTP2Terms?
    /// The beginning of a frame's head.
    private var held = ByteBuffer()
    private var dataFrames: HTTP2DataFrames
    private let scratch: HTTP2Scratch

    init(_ terms: HTTP2Terms, _ scratch: HTTP2Scratch) {
        self.terms = terms
        self.scratch = scratch
        dataFrames = HTTP2DataFrames(headBytesMax: terms.headBytesMax)
    }

    /// Drops whatever comes from now on.
    func close() {
        phase = .closed
        held = ByteBuffer()
    }

    func write(context: ChannelHandlerContext, data: NIOAny, promise: EventLoopPromise<Void>?) {
        guard let terms else { return context.write(data, promise: promise) }
        // The first that NIO writes is its SETTINGS.
        self.terms = nil
        var buffer = context.channel.allocator.buffer(capacity: 64)
        terms.write(to: &buffer)
        context.write(wrapOutboundOut(.byteBuffer(buffer)), promise: promise)
    }

    func channelRead(context: ChannelHandlerContext, data: NIOAny) {
        switch phase {
        case .closed: return
        case .open:
            return joinFrames(unwrapInboundIn(data)) {
                context.fireChannelRead(wrapInboundOut($0))
            }
        case .preface, .firstFrame, .firstSettings, .frames: break
        }
        takeOpening(context: context, unwrapInboundIn(data))
    }

    private func takeOpening(context: ChannelHandlerContext, _ input: ByteBuffer) {
        var bytes = input
        if held.readableBytes > 0 {
            held.writeBuffer(&bytes)
            bytes = held
            held = ByteBuffer()
        }
        if case .preface(let left) = phase {
            guard let preface = bytes.readSlice(length: min(left, bytes.readableBytes)) else {
                return
            }
            let rest = left - preface.readableBytes
            phase = rest > 0 ? .preface(rest) : .firstFrame
            context.fireChannelRead(wrapInboundOut(preface))
        }
        var frames = context.channel.allocator.buffer(
            capacity: bytes.readableBytes + Self.acknowledgement.count)
        while step(&bytes, into: &frames) {}
        // Less than a head, and not in the buffer that it came in.
        held = ByteBuffer(bytes: bytes.readableBytesView)
        joinFrames(frames) { context.fireChannelRead(wrapInboundOut($0)) }
    }

    /// Takes on what can be told; false once there is nothing left, or too little.
    private func step(_ bytes: inout ByteBuffer, into frames: inout ByteBuffer) -> Bool {
        func pass(_ left: Int) -> Int {
            guard var slice = bytes.readSlice(length: min(left, bytes.readableBytes)) else {
                return left
            }
            return left - frames.writeBuffer(&slice)
        }
        guard bytes.readableBytes > 0 else { return false }
        switch phase {
        case .firstFrame:
            guard let head = Self.head(bytes) else { return false }
            // What is no SETTINGS is NIO's to refuse.
            phase = head.isSettings ? .firstSettings(head.bytes) : .open
        case .firstSettings(let left):
            let rest = pass(left)
            phase = .firstSettings(rest)
            guard rest == 0 else { break }
            frames.writeBytes(Self.acknowledgement)
            phase = .frames(0)
        case .frames(0):
            guard let head = Self.head(bytes) else { return false }
            phase = .frames(head.bytes)
            guard head.isAcknowledgement else { break }
            bytes.moveReaderIndex(forwardBy: head.bytes)
            phase = .open
        case .frames(let left): phase = .frames(pass(left))
        case .open: _ = pass(bytes.readableBytes)
        case .preface, .closed: return false
        }
        return true
    }

    private func joinFrames(_ bytes: ByteBuffer, _ pass: (ByteBuffer) -> Void) {
        scratch.lend { joined in
            var bytes = bytes
            let passed = dataFrames.join(&bytes, into: &joined) ? joined : bytes
            if passed.readableBytes > 0 { pass(passed) }
        }
    }

    private struct Head {
        /// Of the whole frame.
        let bytes: Int
        let isSettings: Bool
        let isAcknowledgement: Bool
    }

    private static func head(_ buffer: ByteBuffer) -> Head? {
        let at = buffer.readerIndex
        guard let high = buffer.getInteger(at: at, as: UInt8.self),
            let low = buffer.getInteger(at: at + 1, as: UInt16.self),
            let kind = buffer.getInteger(at: at + 3, as: UInt8.self),
            let flags = buffer.getInteger(at: at + 4, as: UInt8.self),
            let stream = buffer.getInteger(at: at + 5, as: UInt32.self)
        else { return nil }
        let count = Int(high) << 16 | Int(low)
        let isAck = flags & 1 == 1
        return Head(
            bytes: frameHeadBytes + count,
            isSettings: kind == settingsKind && !isAck,
            isAcknowledgement: kind == settingsKind && isAck && count == 0 && stream == 0)
    }
}
