// SPDX-License-Identifier: Apache-2.0

import Metadata
import ObjectStorage
import Primitives
import Records
import TestSupport
import Testing

@testable import FrontendRole

@Suite struct APIErrorTests {
    @Test func rendersBodies() {
        #expect(
            APIError(.badFrame, "x").body.lossyText == #"{"code":"bad_frame","message":"x"}"#)
        #expect(
            APIError.seqNumMismatch(next: .max).body.lossyText
                == #"{"seq_num_mismatch":18446744073709551615}"#)
        #expect(
            APIError.fencingTokenMismatch(current: "").body.lossyText
                == #"{"fencing_token_mismatch":""}"#)
        let tail = APIError.beyondTail(.init(seqNum: 5, timestamp: 9))
        #expect(tail.body.lossyText == #"{"tail":{"seq_num":5,"timestamp":9}}"#)
        #expect(tail.status == 416)
        #expect(APIError.seqNumMismatch(next: 2).status == 412)
    }

    @Test func rendersTerminalFrames() {
        let frame = APIError.seqNumMismatch(next: 2).terminalFrame
        #expect(frame.prefix(6) == [0, 0, 0x19, 0x80, 0x01, 0x9C])
        #expect(frame.dropFirst(6).lossyText == #"{"seq_num_mismatch":2}"#)
    }

    /// The API's table, for all codes that a client may see again.
    @Test func codesKeepTheirPromises() {
        let maybeDone: Set<APIError.Code> = [
            .clientHangup, .other, .requestTimeout, .storage, .unavailable, .upstreamTimeout,
        ]
        for code in APIError.Code.allCases {
            #expect(code.guaranteesNoSideEffect == !maybeDone.contains(code))
            #expect((400...599).contains(code.status))
        }
        #expect(APIError.Code.hotServer.status == 502)
        #expect(APIError.Code.serverDraining.status == 503)
        #expect(APIError.Code.rateLimited.status == 429)
        #expect(!APIError.Code.resourceAlreadyExists.isRetryable)
    }

    /// Where the outcome is unknown, no code says that nothing happened.
    @Test func unknownOutcomesStayUnknown() {
        let kinds: [MetadataError.Kind] = [
            .alreadyExists, .deletionPending, .basinNotFound, .basinDeletionPending, .conflict,
            .unavailable, .failed,
        ]
        for kind in kinds {
            for subject in [APIError.Subject.basin, .stream] {
                let error = APIError(MetadataError(kind, outcomeUnknown: true), about: subject)
                #expect(!error.guaranteesNoSideEffect)
                #expect(error.isRetryable)
            }
        }
        let pending = MetadataError(.deletionPending)
        #expect(APIError(pending, about: .stream).code == .streamDeletionPending)
        #expect(APIError(pending, about: .basin).code == .basinDeletionPending)
        #expect(APIError(MetadataError(.conflict), about: .basin).code == .invalid)
        #expect(APIError(StoreError(.unavailable, "")).code == .unavailable)
        #expect(APIError(StoreError(.notFound, "")).code == .storage)
    }
}

@Suite struct ReconfigurationTests {
    private func run(losing losses: Int) -> (Result<Int, APIError>?, tries: Int) {
        let loop = ManualLoop()
        let reconfiguration = Reconfiguration(loop: loop, random: .seeded(1))
        var result: Result<Int, APIError>?
        var tries = 0
        loop.spawn {
            do throws(APIError) {
                result = .success(
                    try await reconfiguration.run { () throws(APIError) -> Int? in
                        tries += 1
                        return tries > losses ? tries : nil
                    })
            } catch {
                result = .failure(error)
            }
        }
        loop.run { result != nil }
        return (result, tries)
    }

    @Test func triesAgain() {
        #expect(run(losing: 0).0 == .success(1))
        #expect(run(losing: 19).0 == .success(20))
    }

    @Test func givesUp() {
        let (result, tries) = run(losing: .max)
        guard case .failure(let error) = result else {
            Issue.record("it went on for ever")
            return
        }
        #expect(error.code == .rateLimited)
        #expect(tries == 20)
    }
}

@Suite struct CivilTimeTests {
    @Test(
        arguments: [
            (0, "1970-01-01T00:00:00.000Z"), (951_782_399_999, "2000-02-28T23:59:59.999Z"),
            (951_782_400_000, "2000-02-29T00:00:00.000Z"),
            (1_700_000_000_001, "2023-11-14T22:13:20.001Z"),
            (4_107_542_399_000, "2100-02-28T23:59:59.000Z"),
            (4_107_542_400_000, "2100-03-01T00:00:00.000Z"),
            (253_402_300_799_999, "9999-12-31T23:59:59.999Z"),
        ] as [(UInt64, String)])
    func writes(_ milliseconds: UInt64, _ text: String) {
        #expect(CivilTime.text(milliseconds: milliseconds) == text)
    }
}
