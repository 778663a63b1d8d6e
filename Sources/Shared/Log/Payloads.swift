// SPDX-License-Identifier: Apache-2.0

package import Primitives
package import Records

/// A streamlet begins: what the stream is called, and from where it goes on.
package struct OpenPayload: ByteCodable {
    package var basin: String
    package var name: String
    package var state: StreamState
    /// The version of the stream's configuration that is in force.
    package var configVersion: UInt64

    package init(basin: String, name: String, state: StreamState, configVersion: UInt64) {
        self.basin = basin
        self.name = name
        self.state = state
        self.configVersion = configVersion
    }

    package func encode(into writer: inout ByteWriter) {
        writer.writeText(basin)
        writer.writeText(name)
        writer.write(state)
        writer.write(configVersion)
    }

    package init(decoding reader: inout ByteReader) throws(DecodeError) {
        basin = try reader.readText(lengthMax: Limits.basinNameBytes.upperBound)
        name = try reader.readText(lengthMax: Limits.streamNameBytesMax)
        state = try reader.readStreamState()
        configVersion = try reader.read()
    }
}

/// The stream goes on in another channel: all that it needs to start.
package struct HandoffPayload: ByteCodable {
    /// Next sequence number, last timestamp, fencing token and its position, trim point.
    package var state: StreamState
    package var configVersion: UInt64
    package var targetChannel: ChannelID
    package var targetStreamlet: StreamletNumber

    package init(
        state: StreamState, configVersion: UInt64, targetChannel: ChannelID,
        targetStreamlet: StreamletNumber
    ) {
        self.state = state
        self.configVersion = configVersion
        self.targetChannel = targetChannel
        self.targetStreamlet = targetStreamlet
    }

    package func encode(into writer: inout ByteWriter) {
        writer.write(state)
        writer.write(configVersion)
        writer.write(targetChannel.number)
        writer.write(targetStreamlet)
    }

    package init(decoding reader: inout ByteReader) throws(DecodeError) {
        state = try reader.readStreamState()
        configVersion = try reader.read()
        targetChannel = ChannelID(try reader.read())
        guard targetChannel.number > 0 else { throw reader.malformed("handoff to channel 0") }
        targetStreamlet = try reader.read()
    }
}

/// A streamlet ends.
package struct ClosePayload: ByteCodable {
    package var state: StreamState

    package init(state: StreamState) { self.state = state }

    package func encode(into writer: inout ByteWriter) { writer.write(state) }

    package init(decoding reader: inout ByteReader) throws(DecodeError) {
        state = try reader.readStreamState()
    }
}
