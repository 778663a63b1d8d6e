// SPDX-License-Identifier: Apache-2.0

internal import HTTP
internal import Primitives
internal import RPC
internal import Records

extension AppendAck {
    init(_ reply: AppendReply) {
        self.init(start: reply.start, end: reply.end, tail: reply.tail)
    }

    var json: Bytes {
        var json = JSONWriter()
        json.beginObject()
        json.name("start")
        json.write(start)
        json.name("end")
        json.write(end)
        json.name("tail")
        json.write(tail)
        json.endObject()
        return json.finish()
    }
}

extension ByteWriter {
    /// The ack as one frame of a session.
    mutating func writeFrame(_ ack: AppendAck, advisesReconnect: Bool) {
        let start = count
        writeFrameHeader(payloadBytes: 0, advisesReconnect: advisesReconnect)
        ack.encode(into: &self)
        // With so small a payload only the last of the three bytes of length changes.
        patch(UInt8(count - start - SessionFrame.headerBytes + 1), at: start + 2)
    }
}
