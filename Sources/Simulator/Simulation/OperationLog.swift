// SPDX-License-Identifier: Apache-2.0

internal import Primitives
internal import Records

/// What clients of one stream asked and were told, in real-time order: what a checker of
/// linearizability judges, and the public history format.
final class OperationLog {
    struct Append {
        var hashes: [UInt64]
        var setsToken: String?
        var token: String?
        var match: SeqNum?
    }

    enum Request {
        case append(Append)
        case read
        case checkTail
    }

    enum Outcome {
        case appended(tail: SeqNum)
        case read(tail: SeqNum, hash: UInt64)
        case tail(SeqNum)
        /// It had no effect.
        case failed
        /// It may have had its effect, or may have it yet.
        case unknown
    }

    struct Operation {
        let client: Int
        let request: Request
        /// Where its start and its end stand among all starts and ends.
        let start: Int
        var finish = Int.max
        var outcome = Outcome.unknown
    }

    private(set) var operations: [Operation] = []
    private var clock = 0
    /// Client ids that have no operation open.
    private var idle: [Int] = []
    private var clientCount = 0

    /// An operation begins. Returns its id.
    func begin(_ request: Request) -> Int {
        let client: Int
        if let free = idle.popLast() {
            client = free
        } else {
            clientCount += 1
            client = clientCount
        }
        operations.append(Operation(client: client, request: request, start: clock))
        clock += 1
        return operations.count - 1
    }

    /// It ended. One whose outcome is unknown has no end, and its client id is used no more.
    func end(_ id: Int, _ outcome: Outcome) {
        operations[id].outcome = outcome
        if case .unknown = outcome, case .append = operations[id].request { return }
        operations[id].finish = clock
        clock += 1
        idle.append(operations[id].client)
    }

    // MARK: The public format

    /// One JSON object per line.
    var lines: [String] {
        var events: [(at: Int, line: String)] = []
        for (id, operation) in operations.enumerated() {
            events.append((operation.start, line("Start", Self.start(operation.request), id)))
            events.append((operation.finish, line("Finish", Self.finish(operation), id)))
        }
        return events.enumerated().sorted { ($0.1.at, $0.0) < ($1.1.at, $1.0) }.map(\.1.line)
    }

    private func line(_ kind: String, _ event: String, _ id: Int) -> String {
        #"{"event":{"\#(kind)":\#(event)},"client_id":\#(operations[id].client),"op_id":\#(id)}"#
    }

    private static func start(_ request: Request) -> String {
        switch request {
        case .read: return #""Read""#
        case .checkTail: return #""CheckTail""#
        case .append(let append):
            let hashes = append.hashes.map(String.init).joined(separator: ",")
            let match = append.match.map(String.init) ?? "null"
            return #"{"Append":{"num_records":\#(append.hashes.count),"#
                + #""record_hashes":[\#(hashes)],"#
                + #""set_fencing_token":\#(quoted(append.setsToken)),"#
                + #""fencing_token":\#(quoted(append.token)),"match_seq_num":\#(match)}}"#
        }
    }

    /// Tokens of workloads need no escapes.
    private static func quoted(_ text: String?) -> String { text.map { "\"\($0)\"" } ?? "null" }

    private static func finish(_ operation: Operation) -> String {
        switch (operation.request, operation.outcome) {
        case (_, .appended(let tail)): #"{"AppendSuccess":{"tail":\#(tail)}}"#
        case (_, .read(let tail, let hash)):
            #"{"ReadSuccess":{"tail":\#(tail),"stream_hash":\#(hash)}}"#
        case (_, .tail(let tail)): #"{"CheckTailSuccess":{"tail":\#(tail)}}"#
        case (.append, .failed): #""AppendDefiniteFailure""#
        case (.append, .unknown): #""AppendIndefiniteFailure""#
        case (.read, _): #""ReadFailure""#
        case (.checkTail, _): #""CheckTailFailure""#
        }
    }
}
