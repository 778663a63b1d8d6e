// SPDX-License-Identifier: Apache-2.0

import Testing

@testable import Simulation

@Suite struct CheckerTests {
    @Test func recordsAreHashedAsThePublicFormatSays() {
        var stream: UInt64 = 0
        var chain: [UInt64] = []
        for text in ["foo", "bar", "baz"] {
            stream = XXH3.chain(stream, XXH3.hash(Array(text.utf8)))
            chain.append(stream)
        }
        #expect(XXH3.hash(Array("foo".utf8)) == 0xAB6E_5F64_077E_7D8A)
        #expect(
            chain == [0x4D2B_003E_E417_C3A5, 0x132E_5D5D_D793_6EDD, 0x732E_E99A_BC50_02FF])
    }

    /// One input on each side of every branch; the values are those of the reference library.
    @Test(
        arguments: [
            (0, 0x2D06_8005_38D3_94C2, 0xB810_159C_1737_F1E6),
            (1, 0xC44B_DFF4_074E_ECDB, 0x44D1_DA54_6F12_245F),
            (3, 0xC348_9259_E968_AD9E, 0x35CA_1191_0305_A478),
            (4, 0xD3D6_0C15_1901_4E89, 0x479F_B473_334B_6DB4),
            (8, 0xB88D_EE77_F6BF_6980, 0xA964_F8FC_0F3F_2347),
            (9, 0x0368_8DCA_D730_D826, 0xBB84_FD71_A2FA_8553),
            (16, 0x9DA2_3836_ADF2_BE1E, 0xFE15_2E56_538E_6465),
            (17, 0xF34C_3C9C_F5A1_12D1, 0x1F00_6070_29C1_7BFD),
            (33, 0xC077_B454_92D2_9CDE, 0xA630_3B94_9BBB_1866),
            (65, 0x2640_848E_9137_156B, 0xE876_A05A_93C4_3536),
            (97, 0x077A_CB7E_5F4F_D940, 0x8CEB_EFC2_E88B_65E0),
            (128, 0x65F3_C2C0_0FA9_3185, 0x6805_D33C_09D4_7D1A),
            (129, 0x2806_5C6E_C25F_5B25, 0xF7BD_9D5E_813A_494B),
            (240, 0x4917_A75C_0EF8_EED7, 0x5E8E_FC39_437E_E8C2),
        ] as [(Int, UInt64, UInt64)])
    func hashes(count: Int, plain: UInt64, seeded: UInt64) {
        let bytes = (0..<count).map { UInt8(truncatingIfNeeded: $0 * 7) }
        #expect(XXH3.hash(bytes) == plain)
        #expect(XXH3.hash(bytes, seed: 12_345_678_901_234_567) == seeded)
    }

    private func append(
        _ hashes: [UInt64], token: String? = nil, match: UInt64? = nil
    ) -> OperationLog.Request {
        .append(
            OperationLog.Append(hashes: hashes, setsToken: nil, token: token, match: match))
    }

    private func judge(_ log: OperationLog, _ contents: [UInt64]) -> Linearizability.Verdict {
        var check = Linearizability(log.operations, contents: contents)
        return check.check()
    }

    @Test func concurrentAppendsMayComeInEitherOrder() {
        let log = OperationLog()
        let a = log.begin(append([1]))
        let b = log.begin(append([2]))
        log.end(a, .appended(tail: 2))
        log.end(b, .appended(tail: 1))
        #expect(judge(log, [2, 1]) == .linearizable)
        #expect(judge(log, [1, 2]) == .not)
    }

    @Test func aTailBelowWhatWasAcknowledgedIsCaught() {
        let log = OperationLog()
        let early = log.begin(.checkTail)
        let a = log.begin(append([1]))
        log.end(a, .appended(tail: 1))
        log.end(early, .tail(0))
        #expect(judge(log, [1]) == .linearizable)
        let late = log.begin(.checkTail)
        log.end(late, .tail(0))
        #expect(judge(log, [1]) == .not)
    }

    @Test func anUnknownAppendHappensAnywhereBehindItsStartOrNowhere() {
        let log = OperationLog()
        let lost = log.begin(append([7]))
        log.end(lost, .unknown)
        let before = log.begin(.checkTail)
        log.end(before, .tail(0))
        #expect(judge(log, []) == .linearizable)
        let after = log.begin(.read)
        log.end(after, .read(tail: 1, hash: XXH3.chain(0, 7)))
        #expect(judge(log, [7]) == .linearizable)
        let again = log.begin(.checkTail)
        log.end(again, .tail(0))
        #expect(judge(log, [7]) == .not)
    }

    @Test func conditionsMustHave() {
        let log = OperationLog()
        let a = log.begin(append([1], match: 0))
        log.end(a, .appended(tail: 1))
        let b = log.begin(append([2], match: 0))
        log.end(b, .appended(tail: 2))
        #expect(judge(log, [1, 2]) == .not)
        let fenced = OperationLog()
        let c = fenced.begin(append([1], token: "t"))
        fenced.end(c, .appended(tail: 1))
        #expect(judge(fenced, [1]) == .not)
    }

    @Test func aSearchThatIsTooLongIsUndecided() {
        let log = OperationLog()
        let ids = (1...12).map { log.begin(append([UInt64($0)])) }
        for (index, id) in ids.enumerated() { log.end(id, .appended(tail: UInt64(12 - index))) }
        var check = Linearizability(log.operations, contents: [], stepsMax: 10)
        #expect(check.check() == .undecided)
    }

    @Test func historiesAreWrittenInThePublicFormat() {
        let log = OperationLog()
        let a = log.begin(
            .append(OperationLog.Append(hashes: [5], setsToken: "t", token: nil, match: 0)))
        let b = log.begin(append([6]))
        log.end(b, .unknown)
        log.end(a, .appended(tail: 1))
        let c = log.begin(.read)
        log.end(c, .read(tail: 1, hash: 9))
        #expect(
            log.lines == [
                #"{"event":{"Start":{"Append":{"num_records":1,"record_hashes":[5],"#
                    + #""set_fencing_token":"t","fencing_token":null,"match_seq_num":0}}},"#
                    + #""client_id":1,"op_id":0}"#,
                #"{"event":{"Start":{"Append":{"num_records":1,"record_hashes":[6],"#
                    + #""set_fencing_token":null,"fencing_token":null,"match_seq_num":null}}},"#
                    + #""client_id":2,"op_id":1}"#,
                #"{"event":{"Finish":{"AppendSuccess":{"tail":1}}},"client_id":1,"op_id":0}"#,
                #"{"event":{"Start":"Read"},"client_id":1,"op_id":2}"#,
                #"{"event":{"Finish":{"ReadSuccess":{"tail":1,"stream_hash":9}}},"#
                    + #""client_id":1,"op_id":2}"#,
                #"{"event":{"Finish":"AppendIndefiniteFailure"},"client_id":2,"op_id":1}"#,
            ])
    }
}
