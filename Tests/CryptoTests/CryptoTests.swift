// SPDX-License-Identifier: Apache-2.0

import Crypto
import Primitives
import Testing

@Suite struct CryptoTests {
    /// The examples of FIPS 180-4's test vectors (NIST CSRC).
    @Test(arguments: [
        ("", "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"),
        ("abc", "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"),
        (
            "abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq",
            "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1"
        ),
    ])
    func sha256(_ text: String, _ digest: String) {
        #expect(Hex.encode(SHA256.digest(text)) == digest)
        #expect(Hex.encode(SHA256.digest(Bytes(utf8: text))) == digest)
        let parts = text.map { Bytes(utf8: String($0)) }
        #expect(Hex.encode(SHA256.digest(parts)) == digest)
    }

    /// RFC 4231, test cases 1, 2 and 6.
    @Test func hmac() {
        let first = HMACSHA256.code(key: [UInt8](repeating: 0x0B, count: 20), "Hi There")
        #expect(
            Hex.encode(first)
                == "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7")
        let jefe = Array("Jefe".utf8)
        let second = HMACSHA256.code(key: jefe, "what do ya want for nothing?")
        #expect(
            Hex.encode(second)
                == "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843")
        let sixth = HMACSHA256.code(
            key: [UInt8](repeating: 0xAA, count: 131),
            "Test Using Larger Than Block-Size Key - Hash Key First")
        #expect(
            Hex.encode(sixth)
                == "60e431591ee0b67f0d8a26aacbf5b77f8e0bc6213728c5140546040f0ee37f54")
    }

    @Test func hex() {
        let all = (0...255).map { UInt8($0) }
        #expect(Hex.decode(Hex.encode(all)) == all)
        #expect(Hex.decode("aBcD") == [0xAB, 0xCD])
        for text in ["a", "0g", "zz", "+1", "é"] { #expect(Hex.decode(text) == nil) }
    }

    /// RFC 4648, section 10.
    @Test(arguments: [
        ("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foob", "Zm9vYg=="),
        ("fooba", "Zm9vYmE="), ("foobar", "Zm9vYmFy"),
    ])
    func base64(_ text: String, _ encoded: String) {
        #expect(Base64.encode(text.utf8) == encoded)
        #expect(Base64.decode(encoded) == Array(text.utf8))
    }

    @Test func base64RoundTrip() {
        var random = SplitMix64(seed: 1)
        for count in 0..<200 {
            let bytes = (0..<count).map { _ in UInt8(truncatingIfNeeded: random.next()) }
            #expect(Base64.decode(Base64.encode(bytes)) == bytes)
        }
    }

    @Test(arguments: [
        "Zg", "Zg=", "Zg===", "Z===", "====", "Zm9v=", "Zh==", "Zm9=", "Zg==Zg==", "Zm9vZg==Zm9v",
        "Zm 9", "Zm9-", "=Zm9", "Z=m9", "Zm=9", "Zm9v\n",
    ])
    func base64Refused(_ text: String) {
        #expect(Base64.decode(text) == nil)
    }

    @Test func secrets() {
        #expect(Secrets.randomBytes(0).isEmpty)
        #expect(Secrets.randomBytes(32).count == 32)
        #expect(Secrets.randomBytes(32) != Secrets.randomBytes(32))
        #expect(Secrets.areEqual([], []))
        #expect(Secrets.areEqual([1, 2, 3], [1, 2, 3]))
        #expect(!Secrets.areEqual([1, 2, 3], [1, 2, 4]))
        #expect(!Secrets.areEqual([1, 2, 3], [1, 2]))
    }
}
