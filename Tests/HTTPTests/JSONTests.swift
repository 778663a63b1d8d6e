// SPDX-License-Identifier: Apache-2.0

import HTTP
import Primitives
import TestSupport
import Testing

private func parse(_ text: String) throws(JSONError) -> JSONValue {
    try JSON.parse(Bytes(utf8: text))
}

@Suite struct JSONTests {
    @Test(arguments: [
        ("null", JSONValue.null), ("true", .bool(true)), (" false\r\n\t", .bool(false)),
        ("0", .unsigned(0)), ("18446744073709551615", .unsigned(.max)),
        ("18446744073709551616", .double(0x1p64)),
        ("-9223372036854775808", .negative(.min)),
        ("-9223372036854775809", .double(-0x1p63)),
        ("-0", .double(0)), ("1.0", .double(1)), ("1e3", .double(1_000)),
        ("-2.5E-1", .double(-0.25)), (#""""#, .string("")),
        (#""a\"\\\/\b\f\n\r\t\u00e9""#, .string("a\"\\/\u{8}\u{c}\n\r\t\u{e9}")),
        (#""\ud83d\ude00 \u0000""#, .string("😀 \0")), (#""日本\u672c""#, .string("日本本")),
        ("[]", .array([])),
        ("[1,[2] , null]", .array([.unsigned(1), .array([.unsigned(2)]), .null])),
    ])
    func parses(_ text: String, _ value: JSONValue) throws {
        #expect(try parse(text) == value)
    }

    @Test(arguments: [
        "", " ", "nul", "nulls", "True", "01", "-", "+1", "1.", ".5", "1e", "1e+", "0x1", "NaN",
        "1e999", "[1,]", "[,]", "[1 2]", "[", "[1", "{", "{}}", "{\"a\"}", "{\"a\":}",
        "{\"a\":1,}", "{a:1}", "{'a':1}", "\"", "\"\\x\"", "\"\\u12g4\"", "\"\\u12", "\"a\nb\"",
        "\"\u{1}\"", "1 1", "// x\n1", #""\ud800""#, #""\udc00""#, #""\ud800\u0041""#,
        #""\ud800x""#,
    ])
    func refuses(_ text: String) {
        #expect(throws: JSONError.self) { try parse(text) }
    }

    @Test func refusesInvalidUTF8() {
        let texts: [[UInt8]] = [
            [0x22, 0xFF, 0x22], [0x22, 0xC0, 0x80, 0x22], [0x22, 0xED, 0xA0, 0x80, 0x22],
            [0x22, 0x5C, 0x6E, 0xE2, 0x82, 0x22],
        ]
        for text in texts {
            #expect(throws: JSONError.self) { try JSON.parse(Bytes(text)) }
        }
    }

    @Test func readsMembers() throws {
        let object = try #require(try parse(#"{"a":1,"b":{"a":2},"a":3,"":4}"#).object)
        #expect(object["a"] == .unsigned(3))
        #expect(object[""] == .unsigned(4))
        #expect(object["b"]?.object?["a"] == .unsigned(2))
        #expect(object["c"] == nil)
        #expect(object.members.map(\.name) == ["a", "b", "a", ""])
    }

    @Test func boundsDepthAndCount() throws {
        let nested = { (depth: Int) in
            String(repeating: "[", count: depth) + String(repeating: "]", count: depth)
        }
        #expect(throws: Never.self) { try parse(nested(JSON.depthMax)) }
        #expect(throws: JSONError.self) { try parse(nested(JSON.depthMax + 1)) }
        #expect(throws: JSONError.self) { try parse(nested(1_000_000)) }
        #expect(throws: Never.self) { try JSON.parse(Bytes(utf8: "[1,2,3]"), valuesMax: 4) }
        #expect(throws: JSONError.self) { try JSON.parse(Bytes(utf8: "[1,2,3]"), valuesMax: 3) }
    }

    /// Every cut and many damaged forms of a document end in an error or a value, never a trap.
    @Test func fuzzDamagedDocuments() {
        let text =
            #"{"records":[{"timestamp":12,"headers":[["k\u0041","v"]],"body":"\ud83d\ude00é"}],"#
            + #""match_seq_num":-1.5e3,"x":[true,false,null]}"#
        let document = Array(text.utf8)
        for count in 0..<document.count {
            #expect(throws: JSONError.self) { try JSON.parse(Bytes(document.prefix(count))) }
        }
        var random = SplitMix64(seed: 3)
        for _ in 0..<max(20_000, fuzzIterations) {
            var damaged = document
            damaged[Int(random.next() % UInt64(document.count))] = UInt8(random.next() & 255)
            if let value = try? JSON.parse(Bytes(damaged)) { #expect(value.object != nil) }
        }
    }
}

@Suite struct JSONWriterTests {
    private func written(_ write: (inout JSONWriter) -> Void) -> String {
        var json = JSONWriter()
        write(&json)
        return json.finish().lossyText
    }

    @Test func nests() {
        let text = written { json in
            json.beginObject()
            json.field("a", UInt64.max)
            json.name("b")
            json.beginArray()
            json.write(true)
            json.writeNull()
            json.beginObject()
            json.endObject()
            json.beginArray()
            json.endArray()
            json.endArray()
            json.field("c", String?.none)
            json.field("d", "x")
            json.field("e", UInt64(0))
            json.endObject()
        }
        #expect(text == #"{"a":18446744073709551615,"b":[true,null,{},[]],"c":null,"d":"x","e":0}"#)
    }

    /// The body of a trim record, rendered raw: eight control characters.
    @Test func escapesControlCharacters() throws {
        let trim: Bytes = [0, 0, 0, 0, 0, 0, 0, 2]
        #expect(
            written { $0.write(lossy: trim) } == "\"" + String(repeating: "\\u0000", count: 7)
                + "\\u0002\"")
        #expect(written { $0.write("\u{1f}\u{7f}\"\\\n") } == "\"\\u001f\u{7f}\\\"\\\\\\n\"")
        for byte in UInt8(0)..<128 {
            let text = String(decoding: [0x61, byte, 0x62], as: UTF8.self)
            let json = Bytes(utf8: written { $0.write(text) })
            #expect(json.array.allSatisfy { $0 >= 0x20 })
            #expect(try JSON.parse(json) == .string(text))
        }
    }

    @Test func rendersLossily() {
        #expect(written { $0.write(lossy: [0x61, 0xFF, 0x62]) } == "\"a\u{FFFD}b\"")
        #expect(written { $0.write(lossy: Bytes(utf8: "héé😀")) } == "\"héé😀\"")
        #expect(written { $0.write(lossy: Bytes()) } == "\"\"")
    }

    /// As the standard library repairs it, whatever it is.
    @Test func fuzzRepairsWhatIsNoUTF8() throws {
        let random = RandomSource.seeded(1)
        let telling: [UInt8] = [
            0, 0x1F, 0x22, 0x5C, 0x61, 0x80, 0x8F, 0x90, 0x9F, 0xA0, 0xBF, 0xC0, 0xC2, 0xDF, 0xE0,
            0xE2, 0xED, 0xEF, 0xF0, 0xF1, 0xF4, 0xF5, 0xFF,
        ]
        for _ in 0..<max(20_000, fuzzIterations) {
            let bytes = (0..<random.below(9)).map { _ in
                random.oneIn(4)
                    ? UInt8(random.below(256)) : telling[Int(random.below(UInt64(telling.count)))]
            }
            let wanted = String(decoding: bytes, as: UTF8.self)
            let json = Bytes(utf8: written { $0.write(lossy: Bytes(bytes)) })
            #expect(try JSON.parse(json) == .string(wanted), "\(bytes)")
        }
    }

    /// More escapes in a row than are written at once.
    @Test func longRunsOfEscapes() throws {
        let text = String(repeating: "\u{1}\n\"", count: 5_000) + "end" + "\u{1}"
        let json = written { $0.write(text) }
        #expect(json.utf8.count == 5_000 * 10 + 3 + 6 + 2)
        #expect(try JSON.parse(Bytes(utf8: json)) == .string(text))
    }

    @Test func numbersSurvive() throws {
        for number in [0, 9, 10, 1_700_000_000_000, UInt64(Int64.max), .max] {
            #expect(written { $0.write(number) } == String(number))
        }
    }

    @Test func fuzzTextsRoundTrip() throws {
        var random = SplitMix64(seed: 9)
        for _ in 0..<max(2_000, fuzzIterations) {
            let scalars = (0..<random.next() % 20).compactMap { _ in
                Unicode.Scalar(UInt32(random.next() % (random.next() % 2 == 0 ? 0x80 : 0x110000)))
            }
            let text = String(String.UnicodeScalarView(scalars))
            let parsed = try JSON.parse(Bytes(utf8: written { $0.write(text) }))
            // By scalars: two texts that only look the same are not.
            #expect(parsed.string.map { Array($0.unicodeScalars) } == scalars)
        }
    }
}

@Suite struct Base64Tests {
    /// RFC 4648, section 10.
    @Test(arguments: [
        ("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foob", "Zm9vYg=="),
        ("fooba", "Zm9vYmE="), ("foobar", "Zm9vYmFy"),
    ])
    func followsTheStandard(_ plain: String, _ coded: String) {
        #expect(Base64.encode(Bytes(utf8: plain)) == coded)
        #expect(Base64.decode(coded) == Bytes(utf8: plain))
    }

    @Test(arguments: [
        "Z", "Zg", "Zg=", "Zg===", "=", "====", "Zm9", "Zm9v=", "Zh==", "Zm9=", "Zg==Zg==",
        "Z-__", "Zm 9v", "Zm9v\n", "Z=g=",
    ])
    func refuses(_ text: String) {
        #expect(Base64.decode(text) == nil)
    }

    @Test func roundTrips() {
        var random = SplitMix64(seed: 1)
        for count in 0..<200 {
            let bytes = Bytes((0..<count).map { _ in UInt8(truncatingIfNeeded: random.next()) })
            #expect(Base64.decode(Base64.encode(bytes)) == bytes)
        }
    }

    /// One text for each value: what decodes is what that value is written as.
    @Test func fuzzWhatDecodesIsCanonical() {
        var damage = Damage(seed: 6)
        for _ in 0..<fuzzIterations {
            let text = Base64.encode(damage.noise(countMax: 40))
            let damaged = damage.damaged(Bytes(utf8: text)).lossyText
            if let bytes = Base64.decode(damaged) { #expect(Base64.encode(bytes) == damaged) }
        }
    }
}
