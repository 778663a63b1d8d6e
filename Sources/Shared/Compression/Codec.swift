// SPDX-License-Identifier: Apache-2.0

internal import CZlib
internal import CZstd
package import Primitives

/// How a body or a frame is compressed. The raw value is the HTTP content coding.
package enum Coding: String, Sendable, CaseIterable {
    case gzip
    case zstd
}

package enum DecompressionError: Error, Sendable, Equatable {
    /// Not of this coding, corrupt, or cut off.
    case malformed
    /// There is more behind the first `limit` bytes.
    case tooLarge(limit: Int)
}

/// Compresses and decompresses whole messages, with contexts that are made once.
///
/// Decompression never holds more than its limit, however much the input would grow to: the limit
/// is enforced while decompressing, and the windows of both codings are bounded (32 KiB and 8 MiB).
/// Several zstd frames or gzip members in a row decode to their concatenation. No bytes at all
/// decode to no bytes. Confined to one loop.
package final class Codec {
    private let zstd = ZstdContexts()
    private let gzip = GzipContexts()

    package init() {}

    /// The bytes that `bytes` hold, at most `limit` of them.
    package func decompress(
        _ bytes: Bytes, _ coding: Coding, limit: Int
    ) throws(DecompressionError) -> Bytes {
        precondition(limit >= 0, "a limit is never negative")
        guard !bytes.isEmpty else { return bytes }
        return switch coding {
        case .gzip: try gzip.decompress(bytes, limit: limit)
        case .zstd: try zstd.decompress(bytes, limit: limit)
        }
    }

    /// `bytes` as one zstd frame or gzip member, at a level that favours speed.
    package func compress(_ bytes: Bytes, _ coding: Coding) -> Bytes {
        switch coding {
        case .gzip: gzip.compress(bytes)
        case .zstd: zstd.compress(bytes)
        }
    }

    /// Output grows by at most this much before the limit is looked at.
    fileprivate static let stepBytes = 64 << 10
}

// MARK: zstd (RFC 8878)

private final class ZstdContexts {
    /// RFC 9659 bounds the window of the content coding at 8 MiB.
    private static let windowLogMax: Int32 = 23
    private static let level: Int32 = 1
    private let decoder: OpaquePointer
    private let encoder: OpaquePointer

    init() {
        guard let decoder = ZSTD_createDCtx(), let encoder = ZSTD_createCCtx() else {
            fatalError("no memory for a zstd context")
        }
        self.decoder = decoder
        self.encoder = encoder
        let set = ZSTD_DCtx_setParameter(decoder, ZSTD_d_windowLogMax, Self.windowLogMax)
        let level = ZSTD_CCtx_setParameter(encoder, ZSTD_c_compressionLevel, Self.level)
        precondition(ZSTD_isError(set) == 0 && ZSTD_isError(level) == 0, "zstd refuses a setting")
    }

    deinit {
        ZSTD_freeDCtx(decoder)
        ZSTD_freeCCtx(encoder)
    }

    func decompress(_ bytes: Bytes, limit: Int) throws(DecompressionError) -> Bytes {
        ZSTD_DCtx_reset(decoder, ZSTD_reset_session_only)
        var output = ByteWriter(capacity: min(limit + 1, max(bytes.count * 4, 256)))
        var input = ZSTD_inBuffer(src: bytes.base, size: bytes.count, pos: 0)
        // Nonzero inside a frame. The output may lag behind the input, so both must come to rest.
        var hint = 1
        var room = 0
        var filled = 0
        repeat {
            // One byte beyond the limit shows that there is more, and no more is ever written.
            room = min(Codec.stepBytes, limit + 1 - output.count)
            var target = ZSTD_outBuffer(dst: output.reserve(room), size: room, pos: 0)
            hint = ZSTD_decompressStream(decoder, &target, &input)
            guard ZSTD_isError(hint) == 0 else { throw .malformed }
            filled = target.pos
            output.advance(filled)
            guard output.count <= limit else { throw .tooLarge(limit: limit) }
        } while input.pos < input.size || (hint != 0 && filled == room)
        guard hint == 0 else { throw .malformed }
        return withExtendedLifetime(bytes) { output.finish() }
    }

    func compress(_ bytes: Bytes) -> Bytes {
        let bound = ZSTD_compressBound(bytes.count)
        var output = ByteWriter(capacity: bound)
        let written = bytes.withUnsafeBytes {
            ZSTD_compress2(encoder, output.reserve(bound), bound, $0.baseAddress, $0.count)
        }
        precondition(ZSTD_isError(written) == 0, "zstd compresses anything into its bound")
        output.advance(written)
        return output.finish()
    }
}

// MARK: gzip (RFC 1952)

private final class GzipContexts {
    /// The largest window, and 16 for gzip's header and trailer.
    private static let windowBits: Int32 = 15 + 16
    private static let level: Int32 = 1
    private let decoder = UnsafeMutablePointer<z_stream>.allocate(capacity: 1)
    private let encoder = UnsafeMutablePointer<z_stream>.allocate(capacity: 1)

    init() {
        decoder.initialize(to: z_stream())
        encoder.initialize(to: z_stream())
        let size = Int32(MemoryLayout<z_stream>.size)
        let decoding = inflateInit2_(decoder, Self.windowBits, ZLIB_VERSION, size)
        let encoding = deflateInit2_(
            encoder, Self.level, Z_DEFLATED, Self.windowBits, 8, Z_DEFAULT_STRATEGY, ZLIB_VERSION,
            size)
        guard decoding == Z_OK && encoding == Z_OK else { fatalError("no memory for zlib") }
    }

    deinit {
        inflateEnd(decoder)
        deflateEnd(encoder)
        decoder.deallocate()
        encoder.deallocate()
    }

    func decompress(_ bytes: Bytes, limit: Int) throws(DecompressionError) -> Bytes {
        precondition(bytes.count <= Int(UInt32.max), "zlib counts in 32 bits")
        var output = ByteWriter(capacity: min(limit + 1, max(bytes.count * 4, 256)))
        inflateReset(decoder)
        point(decoder, at: bytes)
        while true {
            let room = min(Codec.stepBytes, limit + 1 - output.count)
            decoder.pointee.next_out = output.reserve(room).assumingMemoryBound(to: UInt8.self)
            decoder.pointee.avail_out = UInt32(room)
            let result = inflate(decoder, Z_NO_FLUSH)
            output.advance(room - Int(decoder.pointee.avail_out))
            guard output.count <= limit else { throw .tooLarge(limit: limit) }
            switch result {
            case Z_OK: continue
            case Z_STREAM_END:
                if decoder.pointee.avail_in == 0 {
                    return withExtendedLifetime(bytes) { output.finish() }
                }
                // `inflateReset` keeps the input: another member begins here.
                inflateReset(decoder)
            default: throw .malformed
            }
        }
    }

    func compress(_ bytes: Bytes) -> Bytes {
        precondition(bytes.count <= Int(UInt32.max) / 2, "zlib counts in 32 bits")
        deflateReset(encoder)
        let bound = Int(deflateBound(encoder, UInt(bytes.count)))
        var output = ByteWriter(capacity: bound)
        point(encoder, at: bytes)
        encoder.pointee.next_out = output.reserve(bound).assumingMemoryBound(to: UInt8.self)
        encoder.pointee.avail_out = UInt32(bound)
        let result = deflate(encoder, Z_FINISH)
        precondition(result == Z_STREAM_END, "zlib compresses anything into its bound")
        output.advance(bound - Int(encoder.pointee.avail_out))
        return withExtendedLifetime(bytes) { output.finish() }
    }

    /// zlib reads through a pointer that is not const; it writes nothing there.
    private func point(_ stream: UnsafeMutablePointer<z_stream>, at bytes: Bytes) {
        stream.pointee.next_in = UnsafeMutablePointer(
            mutating: bytes.base.assumingMemoryBound(to: UInt8.self))
        stream.pointee.avail_in = UInt32(bytes.count)
    }
}
