// SPDX-License-Identifier: Apache-2.0

/// A value with a binary layout of its own. Decoding rejects what is cut off or too long.
public protocol ByteCodable: Sendable, Equatable {
    func encode(into writer: inout ByteWriter)
    /// Reads the value from where `reader` stands, and leaves it behind the value.
    init(decoding reader: inout ByteReader) throws(DecodeError)
}

extension ByteCodable {
    @inlinable
    public func encoded() -> Bytes {
        var writer = ByteWriter()
        encode(into: &writer)
        return writer.finish()
    }

    /// Decodes the whole of `bytes`: what is left over is an error.
    @inlinable
    public init(_ bytes: Bytes) throws(DecodeError) {
        var reader = ByteReader(bytes)
        try self.init(decoding: &reader)
        try reader.finish()
    }
}
