// SPDX-License-Identifier: Apache-2.0

import Primitives
import RPC
import TestSupport
import Testing

@Suite struct CallTests {
    @Test(arguments: [Int.max, 1, 5, 17])
    func requestAndReply(pieceBytes: Int) {
        let cell = Cell(pieceBytes: pieceBytes)
        #expect(cell.near.peer == PeerIdentity(role: .channel, id: 2))
        #expect(cell.far.peer == PeerIdentity(role: .frontend, id: 1))
        cell.desk.onServe = { call, _, payload in
            call.end(.notOwner, text("no: " + payload.lossyText))
        }
        let log = CallLog(cell.near.open(.tail, text("tail?")))
        #expect(log.status == nil)
        cell.loop.settle()
        #expect(log.status == .notOwner)
        #expect(log.payload == text("no: tail?"))
        #expect(cell.desk.last.method == .tail)
        #expect(cell.desk.last.deadline == nil)
        #expect(cell.near.callCount == 0)
        #expect(cell.far.callCount == 0)
    }

    @Test func everyMethodAndStatusCrosses() {
        let cell = Cell()
        for method in RPC.Method.allCases {
            for status in Status.allCases {
                cell.desk.onServe = { call, _, _ in call.end(status, Bytes()) }
                let log = CallLog(cell.near.open(method, Bytes()))
                cell.loop.settle()
                #expect(log.status == status)
                #expect(cell.desk.last.method == method)
            }
        }
    }

    @Test func messagesBothWaysInOrder() {
        let cell = Cell(pieceBytes: 11)
        let call = cell.near.open(.append, text("open"))
        let log = CallLog(call)
        for i in 0..<50 { call.send(text("up \(i)")) }
        call.finishSending()
        cell.loop.settle()
        let served = cell.desk.last
        #expect(served.log.messages.map(\.lossyText) == (0..<50).map { "up \($0)" })
        #expect(served.log.isFinished)
        for i in 0..<50 { served.call.send(text("down \(i)")) }
        served.call.end(.ok, text("bye"))
        #expect(log.messages.isEmpty)
        cell.loop.settle()
        #expect(log.messages.map(\.lossyText) == (0..<50).map { "down \($0)" })
        #expect(log.status == .ok)
        #expect(log.payload == text("bye"))
        #expect(log.ends == 1)
        #expect(served.log.ends == 0)
    }

    @Test func callsInterleave() {
        let cell = Cell()
        let calls = (0..<20).map { cell.near.open(.follow, text("\($0)")) }
        let logs = calls.map { CallLog($0) }
        cell.loop.settle()
        #expect(cell.desk.served.map(\.payload.lossyText) == (0..<20).map { "\($0)" })
        for round in 0..<3 {
            for (i, served) in cell.desk.served.enumerated().reversed() {
                served.call.send(text("\(i).\(round)"))
            }
        }
        for served in cell.desk.served { served.call.end(.ok, Bytes()) }
        cell.loop.settle()
        for (i, log) in logs.enumerated() {
            #expect(log.messages.map(\.lossyText) == (0..<3).map { "\(i).\($0)" })
            #expect(log.status == .ok)
        }
    }

    @Test func burstIsOneFlush() {
        let cell = Cell()
        let before = cell.nearLink.flushes
        for i in 0..<100 { _ = CallLog(cell.near.open(.tail, text("\(i)"))) }
        cell.loop.settle()
        #expect(cell.nearLink.flushes == before + 1)
        let farBefore = cell.farLink.flushes
        cell.desk.served.forEach { $0.call.end(.ok, Bytes()) }
        cell.loop.settle()
        #expect(cell.farLink.flushes == farBefore + 1)
    }

    @Test func deadlineEndsTheCallAtTheCaller() {
        let cell = Cell()
        let log = CallLog(cell.near.open(.plan, Bytes(), deadline: .milliseconds(100)))
        cell.loop.settle()
        #expect(cell.desk.last.deadline == .milliseconds(100))
        cell.loop.advance(.milliseconds(99))
        #expect(log.status == nil)
        cell.loop.advance(.milliseconds(2))
        #expect(log.status == .deadlineExceeded)
        #expect(cell.desk.last.log.status == .deadlineExceeded)
        cell.desk.last.call.end(.ok, text("late"))
        cell.loop.settle()
        #expect(log.ends == 1)
        #expect(cell.far.callCount == 0)
    }

    @Test func timerOfAnEndedCallIsGone() {
        let cell = Cell()
        let before = cell.loop.timerCount
        cell.desk.onServe = { call, _, _ in call.end(.ok, Bytes()) }
        let log = CallLog(cell.near.open(.plan, Bytes(), deadline: .seconds(9)))
        cell.loop.settle()
        #expect(log.status == .ok)
        #expect(cell.loop.timerCount == before)
    }

    @Test func cancelTellsTheServerAndNotTheCaller() {
        let cell = Cell()
        let call = cell.near.open(.follow, Bytes())
        let log = CallLog(call)
        cell.loop.settle()
        let served = cell.desk.last
        call.cancel()
        served.call.send(text("crosses the cancel"))
        cell.loop.settle()
        #expect(log.status == nil)
        #expect(log.messages.isEmpty)
        #expect(served.log.status == .cancelled)
        // Whatever is done to a dead call does nothing.
        call.send(text("x"))
        call.finishSending()
        call.cancel()
        call.consumed(1)
        served.call.send(text("x"))
        served.call.end(.ok, Bytes())
        cell.loop.settle()
        #expect(log.ends + served.log.ends == 1)
    }

    @Test func serverIsNotToldOfWhatItEnded() {
        let cell = Cell()
        let call = cell.near.open(.follow, Bytes())
        _ = CallLog(call)
        cell.loop.settle()
        cell.desk.last.call.end(.ok, Bytes())
        call.cancel()
        cell.loop.settle()
        #expect(cell.desk.last.log.ends == 0)
        #expect(!cell.near.isClosed && !cell.far.isClosed)
    }

    @Test func bothEndsMayOpen() {
        let cell = Cell()
        let log = CallLog(cell.far.open(.tail, Bytes()))
        cell.loop.settle()
        // The initiator serves nothing here.
        #expect(log.status == .unknownMethod)
    }

    @Test func tooManyCallsAreRefused() {
        var settings = RPCSettings()
        settings.callsMax = 3
        let cell = Cell(settings: settings)
        let logs = (0..<4).map { _ in CallLog(cell.near.open(.tail, Bytes())) }
        #expect(logs[3].status == nil)
        cell.loop.settle()
        #expect(logs.map(\.status) == [nil, nil, nil, .overloaded])
        #expect(cell.desk.served.count == 3)
    }
}
