// SPDX-License-Identifier: Apache-2.0

extension Statement {
    static let schemaVersion = Statement(
        "schema_version", "SELECT max(number) FROM millrace.schema_migration")

    // MARK: Basins

    static let provisionBasin = Statement(
        "provision_basin",
        "SELECT outcome, (info).* FROM millrace.provision_basin($1, $2, $3, $4, $5, $6, $7, $8)")

    static let basin = Statement("basin", "SELECT * FROM millrace.basin_info WHERE name = $1")

    /// Prefix, past its range, after, limit.
    static let listBasins = Statement(
        "list_basins",
        """
        SELECT * FROM millrace.basin_info
        WHERE name >= $1 AND name <= $2 AND name > $3 AND starts_with(name, $1)
        ORDER BY name LIMIT $4
        """)

    static let updateBasin = Statement(
        "update_basin",
        "SELECT outcome, (info).* FROM millrace.update_basin($1, $2, $3, $4, $5, $6)")

    static let deleteBasin = Statement(
        "delete_basin",
        """
        UPDATE millrace.basin SET
            deleted_milliseconds = coalesce(deleted_milliseconds, millrace.now_milliseconds())
        WHERE name = $1 RETURNING 1
        """)

    // MARK: Streams

    static let provisionStream = Statement(
        "provision_stream",
        "SELECT outcome, (info).* FROM millrace.provision_stream($1, $2, $3, $4, $5, $6, $7)")

    static let streamByName = Statement(
        "stream_by_name",
        """
        SELECT i.* FROM millrace.basin b
        LEFT JOIN millrace.stream_info i ON i.basin = b.name AND i.name = $2
        WHERE b.name = $1
        """)

    static let streamByID = Statement(
        "stream_by_id", "SELECT * FROM millrace.stream_info WHERE id = $1")

    /// Basin, prefix, past its range, after, limit.
    static let listStreams = Statement(
        "list_streams",
        """
        SELECT i.* FROM millrace.basin b
        LEFT JOIN LATERAL (
            SELECT s.* FROM millrace.stream_info s
            WHERE s.basin = b.name AND s.name >= $2 AND s.name <= $3 AND s.name > $4
                AND starts_with(s.name, $2)
            ORDER BY s.name LIMIT $5
        ) i ON true
        WHERE b.name = $1 ORDER BY i.name
        """)

    static let updateStream = Statement(
        "update_stream", "SELECT outcome, (info).* FROM millrace.update_stream($1, $2, $3)")

    static let deleteStream = Statement(
        "delete_stream", "SELECT outcome, (info).* FROM millrace.delete_stream($1, $2)")

    // MARK: Channels

    private static let channelColumns = """
        id, storage_class, zone, address, state, renewals, bytes_per_second,
        queue_delay_microseconds, open_streamlets, flushed_end, sealed_at, started_milliseconds
        """

    static let registerChannel = Statement(
        "register_channel",
        """
        INSERT INTO millrace.channel (storage_class, zone, address, unsure_milliseconds)
        VALUES ($1, $2, $3, $4)
        RETURNING id
        """)

    static let renewChannel = Statement(
        "renew_channel",
        """
        UPDATE millrace.channel SET
            renewals = renewals + 1, bytes_per_second = $2, queue_delay_microseconds = $3,
            open_streamlets = $4
        WHERE id = $1 AND state = 'active' RETURNING 1
        """)

    static let channels = Statement(
        "channels",
        """
        SELECT \(channelColumns) FROM millrace.channel
        WHERE state = ANY ($1::text[]) ORDER BY id
        """)

    static let channel = Statement(
        "channel", "SELECT \(channelColumns) FROM millrace.channel WHERE id = $1")

    static let declareDead = Statement(
        "declare_dead",
        """
        UPDATE millrace.channel SET state = CASE state WHEN 'active' THEN 'dead' ELSE state END
        WHERE id = $1 AND (state <> 'active' OR renewals = $2) RETURNING 1
        """)

    static let resignChannel = Statement(
        "resign_channel",
        "UPDATE millrace.channel SET state = 'dead' WHERE id = $1 AND state = 'active'")

    static let publishSeal = Statement(
        "publish_seal",
        """
        UPDATE millrace.channel SET
            state = CASE state WHEN 'dead' THEN 'sealed' ELSE state END, sealed_at = $2
        WHERE id = $1
            AND (state = 'dead' AND flushed_end = $3
                OR state IN ('sealed', 'retired') AND sealed_at = $2)
        RETURNING 1
        """)

    static let retireChannel = Statement("retire_channel", "SELECT millrace.retire_channel($1)")

    // MARK: Streamlets

    static let claim = Statement(
        "claim",
        """
        SELECT outcome, held_number, held_channel, held_address, held_is_active, (info).*
        FROM millrace.claim($1, $2)
        """)

    static let flush = Statement(
        "flush", "SELECT outcome, misfit FROM millrace.flush($1, $2, $3, $4, $5)")

    private static let streamletColumns =
        "stream, number, channel, start_seq_num, end_seq_num, state"

    static let streamletsOfChannel = Statement(
        "streamlets_of_channel",
        """
        SELECT \(streamletColumns) FROM millrace.streamlet
        WHERE channel = $1 AND state = ANY ($2::text[]) ORDER BY stream, number
        """)

    static let streamletsOfStream = Statement(
        "streamlets_of_stream",
        """
        SELECT \(streamletColumns) FROM millrace.streamlet
        WHERE stream = $1 AND number < $3::bigint ORDER BY number DESC LIMIT $2
        """)

    // MARK: Reading

    /// Segments lie end to end but for gaps below the trim point: the last that starts at or below
    /// the wanted number is the first that may hold it.
    static let segmentsFromSeqNum = Statement(
        "segments_from_seq_num",
        segments(
            """
            start_seq_num >= coalesce((
                SELECT max(start_seq_num) FROM millrace.segment
                WHERE stream = $1 AND start_seq_num <= $2), 0)
            AND end_seq_num > $2
            """))

    static let segmentsFromTimestamp = Statement(
        "segments_from_timestamp",
        segments(
            """
            start_seq_num >= (
                SELECT start_seq_num FROM millrace.segment
                WHERE stream = $1 AND last_timestamp >= $2
                ORDER BY last_timestamp, start_seq_num LIMIT 1)
            """))

    /// The stream stands in the first row only.
    private static func segments(_ condition: String) -> String {
        """
        SELECT g.stream, g.start_seq_num, g.start_timestamp, g.end_seq_num, g.last_timestamp,
            g.bucket, g.object, g.object_offset, g.object_length, g.metered_bytes, g.checksum, l.*
        FROM (SELECT 1::bigint AS place, i.* FROM millrace.stream_info i WHERE i.id = $1) l
        FULL JOIN (
            SELECT *, row_number() OVER (ORDER BY start_seq_num) AS place
            FROM (
                SELECT * FROM millrace.segment WHERE stream = $1 AND \(condition)
                ORDER BY start_seq_num LIMIT $3
            ) wanted
        ) g USING (place)
        ORDER BY g.place
        """
    }

    // MARK: Leases

    static let holdLease = Statement(
        "hold_lease",
        """
        INSERT INTO millrace.lease AS l (name, holder, renewals) VALUES ($1, $2, 1)
        ON CONFLICT (name) DO UPDATE SET
            holder = CASE
                WHEN coalesce(l.holder, $2) = $2 OR l.renewals = $3 THEN $2 ELSE l.holder END,
            renewals = CASE
                WHEN coalesce(l.holder, $2) = $2 OR l.renewals = $3 THEN l.renewals + 1
                ELSE l.renewals END
        RETURNING holder, renewals
        """)

    static let releaseLease = Statement(
        "release_lease", "UPDATE millrace.lease SET holder = NULL WHERE name = $1 AND holder = $2")
}
