// SPDX-License-Identifier: Apache-2.0

package import Primitives

/// Why an append cannot be accepted, whatever the stream's state.
package enum AppendInputError: Error, Equatable, CustomStringConvertible {
    /// The bytes are not an `AppendInput`.
    case malformed(DecodeError)
    /// It can be read, but breaks a rule of the API; a sentence for the client.
    case invalid(String)

    package var description: String {
        switch self {
        case .malformed(let error): "malformed append input: \(error)"
        case .invalid(let what): what
        }
    }
}

/// The rules that each record of an append must satisfy.
enum RecordRules {
    /// Throws `.invalid` unless the record with these stored fields may be appended; `index` is its
    /// place in the batch.
    @inline(__always)
    static func check(
        _ shape: RecordShape, fields: UnsafeRawBufferPointer, index: Int
    ) throws(AppendInputError) {
        let isSmall = shape.meteredBytes <= 65_536
        if isSmall && shape.emptyNameCount == 0 { return }
        try checkThoroughly(shape, fields: fields, index: index)
    }

    @inline(never)
    private static func checkThoroughly(
        _ shape: RecordShape, fields: UnsafeRawBufferPointer, index: Int
    ) throws(AppendInputError) {
        if shape.emptyNameCount > 0 {
            guard shape.headerCount == 1 else {
                throw .invalid("record \(index): a header name must not be empty")
            }
            do throws(DecodeError) {
                _ = try Command(storedFields: fields)
            } catch {
                guard case .malformed(let what) = error.reason else { throw .malformed(error) }
                throw .invalid("record \(index): \(what)")
            }
        }
        guard shape.meteredBytes <= Limits.recordMeteredBytesMax else {
            throw .invalid(
                "record \(index): \(shape.meteredBytes) metered bytes are more than "
                    + "\(Limits.recordMeteredBytesMax)")
        }
        guard shape.headerCount <= Limits.recordHeadersMax else {
            throw .invalid("record \(index): more than \(Limits.recordHeadersMax) headers")
        }
        guard StoredRecord.elementBytesMax(fieldsBytes: fields.count) <= Limits.storedRecordBytesMax
        else {
            throw .invalid("record \(index): its headers take too many bytes to be read back")
        }
    }

    static func checkBatch(count: Int) throws(AppendInputError) {
        guard count >= 1 else { throw .invalid("an append must contain at least one record") }
        guard count <= Limits.batchRecordsMax else {
            throw .invalid("\(count) records are more than \(Limits.batchRecordsMax)")
        }
    }

    static func checkBatch(meteredBytes: Int) throws(AppendInputError) {
        guard meteredBytes <= Limits.batchMeteredBytesMax else {
            throw .invalid(
                "a batch of \(meteredBytes) metered bytes is larger than "
                    + "\(Limits.batchMeteredBytesMax)")
        }
    }

    static func check(fencingToken: String) throws(AppendInputError) {
        let bytes = fencingToken.utf8.count
        guard bytes <= Limits.fencingTokenBytesMax else {
            throw .invalid(
                "a fencing token of \(bytes) bytes is longer than \(Limits.fencingTokenBytesMax)")
        }
    }
}

extension Command {
    /// The command in a command record's stored fields. An error says which rule they break.
    package init(storedFields: Bytes) throws(DecodeError) {
        self = try storedFields.withUnsafeBytes { fields throws(DecodeError) in
            try Command(storedFields: fields)
        }
    }

    package init(storedFields fields: UnsafeRawBufferPointer) throws(DecodeError) {
        guard let shape = RecordShape(storedFields: fields), shape.isCommand else {
            throw DecodeError(.malformed("not a command"), at: 0)
        }
        // One header without a name: its value is all that stands between tags and body.
        let body = UnsafeRawBufferPointer(rebasing: fields[(fields.count - shape.bodyBytes)...])
        let valueBytes = shape.contentBytes - shape.bodyBytes
        let value = fields.dropFirst(valueBytes == 0 ? 2 : 4).prefix(valueBytes)
        if value.elementsEqual("fence".utf8) {
            guard body.count <= Limits.fencingTokenBytesMax else {
                throw DecodeError(
                    .malformed(
                        "a fencing token of \(body.count) bytes is longer than "
                            + "\(Limits.fencingTokenBytesMax)"), at: 0)
            }
            guard let token = String(validating: body, as: UTF8.self) else {
                throw DecodeError(.malformed("a fencing token must be UTF-8"), at: 0)
            }
            self = .fence(token: token)
        } else if value.elementsEqual("trim".utf8) {
            guard body.count == 8 else {
                throw DecodeError(.malformed("a trim point must be 8 bytes"), at: 0)
            }
            self = .trim(below: UInt64(bigEndian: body.loadUnaligned(as: UInt64.self)))
        } else {
            throw DecodeError(
                .malformed("unknown command; a header name is empty only in fence and trim"), at: 0)
        }
    }
}
