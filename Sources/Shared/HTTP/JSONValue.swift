// SPDX-License-Identifier: Apache-2.0

/// A JSON document, without loss: integers keep all of their 64 bits.
package enum JSONValue: Sendable, Equatable {
    case null
    case bool(Bool)
    /// An integer of 0 or more, written without fraction and exponent.
    case unsigned(UInt64)
    /// An integer below 0, written without fraction and exponent.
    case negative(Int64)
    /// Every other number.
    case double(Double)
    case string(String)
    case array([JSONValue])
    case object(JSONObject)

    package var isNull: Bool { self == .null }

    package var unsigned: UInt64? {
        if case .unsigned(let value) = self { value } else { nil }
    }
    package var bool: Bool? {
        if case .bool(let value) = self { value } else { nil }
    }
    package var string: String? {
        if case .string(let value) = self { value } else { nil }
    }
    package var array: [JSONValue]? {
        if case .array(let value) = self { value } else { nil }
    }
    package var object: JSONObject? {
        if case .object(let value) = self { value } else { nil }
    }
}

/// A JSON object's members in the order in which they were written.
package struct JSONObject: Sendable, Equatable {
    package struct Member: Sendable, Equatable {
        package let name: String
        package let value: JSONValue
    }
    package private(set) var members: [Member] = []

    package init() {}

    package mutating func append(_ name: String, _ value: JSONValue) {
        members.append(Member(name: name, value: value))
    }

    /// The member `name`; of several, the last one counts.
    package subscript(name: String) -> JSONValue? {
        members.last { $0.name == name }?.value
    }
}
