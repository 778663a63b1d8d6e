// SPDX-License-Identifier: Apache-2.0

import HTTP
import Testing

@Suite struct URITests {
    @Test(arguments: [
        ("/", [""]), ("/v1", ["v1"]), ("/v1/", ["v1", ""]), ("//a", ["", "a"]),
        ("/v1/streams/a%2Fb", ["v1", "streams", "a%2Fb"]), ("/a/\u{301}b", ["a", "\u{301}b"]),
    ])
    func splits(_ path: String, _ segments: [String]) {
        #expect(URI.segments(of: path).map { $0.map(String.init) } == segments)
    }

    @Test func refusesRelativePaths() {
        #expect(URI.segments(of: "") == nil)
        #expect(URI.segments(of: "*") == nil)
        #expect(URI.segments(of: "v1/basins") == nil)
    }

    @Test(arguments: [
        ("a%2Fb%20c", "a/b c"), ("a+b", "a+b"), ("%E6%97%A5%F0%9F%98%80", "日😀"),
        ("!'()*~:@&=+$", "!'()*~:@&=+$"), ("%", "%"), ("%2", "%2"), ("%zz%41", "%zzA"),
        ("%%41", "%A"), ("%00", "\0"), ("%2e%2E", ".."), ("", ""), ("100%", "100%"),
    ])
    func decodes(_ raw: String, _ text: String) throws {
        #expect(try URI.decode(segment: raw) == text)
    }

    @Test(arguments: ["%ff", "a%C3", "%ED%A0%80", "%C0%AF"])
    func refusesWhatIsNotUTF8(_ raw: String) {
        #expect(throws: InvalidPercentEncoding.self) { try URI.decode(segment: raw) }
    }

    @Test func readsQueries() throws {
        let query = Query("prefix=a+b&x=%FF&limit=1&&=z&empty=&flag&limit=2&eq=a=b&s%65t=1&p=%2B")
        #expect(try query.value("prefix") == "a b")
        #expect(try query.value("limit") == "2")
        #expect(try query.value("empty") == "")
        #expect(try query.value("flag") == "")
        #expect(try query.value("eq") == "a=b")
        #expect(try query.value("set") == "1")
        #expect(try query.value("p") == "+")
        #expect(try query.value("absent") == nil)
        #expect(throws: InvalidPercentEncoding.self) { try query.value("x") }
        #expect(try Query("").value("a") == nil)
    }
}
