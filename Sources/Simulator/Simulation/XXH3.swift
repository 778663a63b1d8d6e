// SPDX-License-Identifier: Apache-2.0

internal import Primitives

/// XXH3, 64 bit, of up to 240 bytes: what the public format of histories names records by.
///
/// Source: Y. Collet, "xxHash fast digest algorithm", specification of XXH3.
enum XXH3 {
    static let bytesMax = 240

    private static let prime1: UInt64 = 0x9E37_79B1_85EB_CA87
    private static let prime2: UInt64 = 0xC2B2_AE3D_27D4_EB4F
    private static let prime3: UInt64 = 0x1656_67B1_9E37_79F9

    static func hash(_ bytes: [UInt8], seed: UInt64 = 0) -> UInt64 {
        let count = bytes.count
        switch count {
        case 0: return avalanche64(seed ^ (word(secret, 56) ^ word(secret, 64)))
        case 1...3: return hash3(bytes, seed)
        case 4...8: return hash8(bytes, seed)
        case 9...16: return hash16(bytes, seed)
        case 17...128: return hash128(bytes, seed)
        default:
            precondition(count <= bytesMax, "records of histories are small")
            return hash240(bytes, seed)
        }
    }

    /// The hash of a stream that had hash `stream`, with one record more.
    static func chain(_ stream: UInt64, _ record: UInt64) -> UInt64 {
        hash((0..<8).map { UInt8(truncatingIfNeeded: record >> (8 * $0)) }, seed: stream)
    }

    private static func hash3(_ b: [UInt8], _ seed: UInt64) -> UInt64 {
        let n = b.count
        let low = UInt64(b[0]) << 16 | UInt64(b[n >> 1]) << 24
        let combined = low | UInt64(b[n - 1]) | UInt64(n) << 8
        let flip = (half(secret, 0) ^ half(secret, 4)) &+ seed
        return avalanche64(combined ^ flip)
    }

    private static func hash8(_ b: [UInt8], _ seed: UInt64) -> UInt64 {
        let seed = seed ^ UInt64(UInt32(truncatingIfNeeded: seed).byteSwapped) << 32
        let input = half(b, b.count - 4) &+ half(b, 0) << 32
        var h = input ^ ((word(secret, 8) ^ word(secret, 16)) &- seed)
        h ^= rotate(h, 49) ^ rotate(h, 24)
        h = h &* 0x9FB2_1C65_1E98_DF25
        h ^= (h >> 35) &+ UInt64(b.count)
        h = h &* 0x9FB2_1C65_1E98_DF25
        return h ^ h >> 28
    }

    private static func hash16(_ b: [UInt8], _ seed: UInt64) -> UInt64 {
        let low = word(b, 0) ^ ((word(secret, 24) ^ word(secret, 32)) &+ seed)
        let high = word(b, b.count - 8) ^ ((word(secret, 40) ^ word(secret, 48)) &- seed)
        return avalanche(UInt64(b.count) &+ low.byteSwapped &+ high &+ fold(low, high))
    }

    private static func hash128(_ b: [UInt8], _ seed: UInt64) -> UInt64 {
        let n = b.count
        var sum = UInt64(n) &* prime1
        for i in stride(from: (n - 1) / 32, through: 0, by: -1) {
            sum = sum &+ mix(b, 16 * i, 32 * i, seed)
            sum = sum &+ mix(b, n - 16 * (i + 1), 32 * i + 16, seed)
        }
        return avalanche(sum)
    }

    private static func hash240(_ b: [UInt8], _ seed: UInt64) -> UInt64 {
        let n = b.count
        var sum = UInt64(n) &* prime1
        for i in 0..<8 { sum = sum &+ mix(b, 16 * i, 16 * i, seed) }
        sum = avalanche(sum)
        for i in 8..<n / 16 { sum = sum &+ mix(b, 16 * i, 16 * (i - 8) + 3, seed) }
        return avalanche(sum &+ mix(b, n - 16, 136 - 17, seed))
    }

    private static func mix(_ b: [UInt8], _ at: Int, _ key: Int, _ seed: UInt64) -> UInt64 {
        fold(
            word(b, at) ^ (word(secret, key) &+ seed),
            word(b, at + 8) ^ (word(secret, key + 8) &- seed))
    }

    private static func fold(_ a: UInt64, _ b: UInt64) -> UInt64 {
        let product = a.multipliedFullWidth(by: b)
        return product.high ^ product.low
    }

    private static func avalanche(_ value: UInt64) -> UInt64 {
        var h = value ^ value >> 37
        h = h &* 0x1656_6791_9E37_79F9
        return h ^ h >> 32
    }

    private static func avalanche64(_ value: UInt64) -> UInt64 {
        var h = value ^ value >> 33
        h = h &* prime2
        h ^= h >> 29
        h = h &* prime3
        return h ^ h >> 32
    }

    private static func rotate(_ value: UInt64, _ by: UInt64) -> UInt64 {
        value << by | value >> (64 - by)
    }

    /// Little-endian.
    private static func word(_ b: [UInt8], _ at: Int) -> UInt64 {
        (0..<8).reduce(0) { $0 | UInt64(b[at + $1]) << UInt64(8 * $1) }
    }

    private static func half(_ b: [UInt8], _ at: Int) -> UInt64 {
        (0..<4).reduce(0) { $0 | UInt64(b[at + $1]) << UInt64(8 * $1) }
    }

    /// The specification's default secret, as big-endian words.
    private static let secret: [UInt8] = [
        0xB8FE_6C39_23A4_4BBE, 0x7C01_812C_F721_AD1C, 0xDED4_6DE9_8390_97DB, 0x7240_A4A4_B7B3_671F,
        0xCB79_E64E_CCC0_E578, 0x825A_D07D_CCFF_7221, 0xB808_4674_F743_248E, 0xE035_90E6_813A_264C,
        0x3C28_52BB_91C3_00CB, 0x88D0_658B_1B53_2EA3, 0x7164_4897_A20D_F94E, 0x3819_EF46_A9DE_ACD8,
        0xA8FA_763F_E39C_343F, 0xF9DC_BBC7_C70B_4F1D, 0x8A51_E04B_CDB4_5931, 0xC89F_7EC9_D978_7364,
        0xEAC5_AC83_34D3_EBC3, 0xC581_A0FF_FA13_63EB, 0x170D_DD51_B7F0_DA49, 0xD316_5526_29D4_689E,
        0x2B16_BE58_7D47_A1FC, 0x8FF8_B8D1_7AD0_31CE, 0x45CB_3A8F_9516_0428, 0xAFD7_FBCA_BB4B_407E,
    ].flatMap { (word: UInt64) in (0..<8).map { UInt8(truncatingIfNeeded: word >> (56 - 8 * $0)) } }
}
