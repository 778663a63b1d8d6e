// SPDX-License-Identifier: Apache-2.0

internal import Metadata

extension Statement {
    // MARK: Streams

    /// First id, last id, after, limit. Answers those that are due, the last one in any case, and
    /// how many were looked at.
    static func scanStreams(for work: StreamWork) -> Statement {
        let isMarked = work == .purge ? "IS NOT NULL" : "IS NULL"
        return Statement(
            "scan_streams_\(work.rawValue)",
            """
            WITH page AS MATERIALIZED (
                SELECT id, config, trim_point, tail_seq_num FROM millrace.stream
                WHERE id >= $1 AND id <= $2 AND ($3::uuid IS NULL OR id > $3)
                    AND deleted_milliseconds \(isMarked)
                ORDER BY id LIMIT $4
            )
            SELECT id, is_due, total FROM (
                SELECT
                    s.id, coalesce(\(condition(work)), false) AS is_due,
                    row_number() OVER (ORDER BY s.id DESC) AS from_end, count(*) OVER () AS total
                FROM page s
            ) found
            WHERE is_due OR from_end = 1 ORDER BY id
            """)
    }

    private static func condition(_ work: StreamWork) -> String {
        switch work {
        case .trim:
            """
            (SELECT g.end_seq_num FROM millrace.segment g WHERE g.stream = s.id
                ORDER BY g.start_seq_num LIMIT 1) <= s.trim_point
            """
        case .expiry:
            """
            CASE WHEN millrace.retention_seconds(s.config) IS NOT NULL THEN millrace.has_passed(
                millrace.retention_seconds(s.config),
                (SELECT g.created_milliseconds FROM millrace.segment g
                    WHERE g.stream = s.id AND g.end_seq_num > s.trim_point
                    ORDER BY g.start_seq_num LIMIT 1))
            END
            """
        case .emptiness:
            """
            (s.config ->> 'delete_on_empty')::numeric > 0 AND s.trim_point >= s.tail_seq_num
                AND NOT EXISTS (
                    SELECT FROM millrace.streamlet t
                    WHERE t.stream = s.id AND t.state IN ('open', 'prepared'))
            """
        case .purge: "true"
        case .compaction:
            """
            (SELECT count(*) FROM (
                SELECT FROM millrace.segment g
                WHERE g.stream = s.id AND g.object_length < \(SmallSegments.lengthEnd)
                LIMIT \(SmallSegments.countMin)) few) = \(SmallSegments.countMin)
            """
        }
    }

    static let unlinkTrimmed = Statement(
        "unlink_trimmed", "SELECT millrace.unlink_trimmed($1, $2)")

    static let expire = Statement("expire", "SELECT millrace.expire($1)")

    static let deleteIfEmpty = Statement("delete_if_empty", "SELECT millrace.delete_if_empty($1)")

    static let purgeStream = Statement(
        "purge_stream", "SELECT outcome, unlinked FROM millrace.purge_stream($1, $2)")

    static let deletingBasins = Statement(
        "deleting_basins",
        """
        SELECT name FROM millrace.basin WHERE deleted_milliseconds IS NOT NULL AND name > $1
        ORDER BY name LIMIT $2
        """)

    static let purgeBasin = Statement(
        "purge_basin", "SELECT outcome, marked FROM millrace.purge_basin($1, $2)")

    // MARK: Compaction

    static let smallSegments = Statement(
        "small_segments",
        """
        SELECT stream, start_seq_num, start_timestamp, end_seq_num, last_timestamp, bucket, object,
            object_offset, object_length, metered_bytes, checksum, created_milliseconds
        FROM millrace.segment
        WHERE stream = $1 AND start_seq_num >= $2 AND object_length < \(SmallSegments.lengthEnd)
        ORDER BY start_seq_num LIMIT $3
        """)

    static let compact = Statement("compact", "SELECT millrace.compact($1, $2, $3)")

    // MARK: Objects

    private static let isReferenced =
        "EXISTS (SELECT FROM millrace.segment s WHERE s.object = g.object AND s.bucket = g.bucket)"

    static let knownObjects = Statement(
        "known_objects",
        """
        SELECT o.object FROM json_array_elements_text($1) AS o (object)
        WHERE EXISTS (
                SELECT FROM millrace.segment s WHERE s.object = o.object AND s.bucket = $2)
            OR EXISTS (
                SELECT FROM millrace.garbage g
                WHERE g.object = o.object AND g.bucket = $2 AND NOT g.is_gone)
        """)

    static let unlinkObject = Statement(
        "unlink_object",
        """
        INSERT INTO millrace.garbage AS old (bucket, object, is_orphan)
        SELECT g.bucket, g.object, true FROM (VALUES ($1::text, $2::text)) AS g (bucket, object)
        WHERE NOT \(isReferenced)
        ON CONFLICT (object, bucket) DO UPDATE
            SET is_gone = false, since_milliseconds = millrace.now_milliseconds()
            WHERE old.is_gone
        """)

    /// First key, end of keys, after: key and bucket, limit.
    ///
    /// The horizon of a condemned object is the first transaction of which it is certain that it
    /// sees the object condemned; once no earlier one is under way, the object is settled. (A
    /// horizon from the future is another cluster's.)
    static let scanGarbage = Statement(
        "scan_garbage",
        """
        WITH page AS MATERIALIZED (
            SELECT *, pg_current_snapshot() AS seen FROM millrace.garbage
            WHERE object >= $1 AND object < $2 AND NOT is_gone
                AND ($3::text IS NULL OR (object, bucket) > ($3, $4::text))
            ORDER BY object, bucket LIMIT $5
        ), stamped AS (
            UPDATE millrace.garbage g SET horizon = pg_snapshot_xmax(p.seen)
            FROM page p
            WHERE g.object = p.object AND g.bucket = p.bucket AND p.is_condemned
                AND (p.horizon IS NULL OR p.horizon > pg_snapshot_xmax(p.seen))
        )
        SELECT g.bucket, g.object, g.is_condemned,
            coalesce(g.is_condemned AND g.horizon <= pg_snapshot_xmin(g.seen), false),
            millrace.age(g.since_milliseconds), \(isReferenced)
        FROM page g ORDER BY g.object, g.bucket
        """)

    static let condemn = Statement(
        "condemn",
        """
        UPDATE millrace.garbage g
        SET is_condemned = true, since_milliseconds = millrace.now_milliseconds()
        WHERE bucket = $1 AND object = $2 AND NOT is_condemned
            AND millrace.age(since_milliseconds) >= $3::numeric AND NOT \(isReferenced)
        RETURNING 1
        """)

    static let forgetObject = Statement(
        "forget_object", "SELECT millrace.forget_object($1, $2)")

    // MARK: Logs

    /// After, partitions, partition, limit.
    static let scanLogs = Statement(
        "scan_logs",
        """
        SELECT c.id, c.storage_class, c.zone, c.address, c.state, c.renewals, c.bytes_per_second,
            c.queue_delay_microseconds, c.open_streamlets, c.flushed_end, c.sealed_at,
            c.started_milliseconds, coalesce(l.deleted_end, 0), l.marked_end,
            CASE WHEN l.marked_end IS NOT NULL THEN millrace.age(l.marked_milliseconds) END,
            CASE WHEN l.retired_milliseconds IS NOT NULL
                THEN millrace.age(l.retired_milliseconds) END, c.unsure_milliseconds
        FROM millrace.channel c LEFT JOIN millrace.log_garbage l ON l.channel = c.id
        WHERE c.id > $1 AND c.id % $2 = $3
        ORDER BY c.id LIMIT $4
        """)

    static let markLog = Statement(
        "mark_log",
        """
        INSERT INTO millrace.log_garbage AS l (
            channel, marked_end, marked_milliseconds, retired_milliseconds)
        SELECT
            c.id, nullif(c.flushed_end, 0),
            CASE WHEN c.flushed_end > 0 THEN millrace.now_milliseconds() END,
            CASE WHEN c.state = 'retired' THEN millrace.now_milliseconds() END
        FROM millrace.channel c WHERE c.id = $1
        ON CONFLICT (channel) DO UPDATE SET
            marked_end = CASE
                WHEN l.marked_end IS NULL AND excluded.marked_end > l.deleted_end
                THEN excluded.marked_end ELSE l.marked_end END,
            marked_milliseconds = CASE
                WHEN l.marked_end IS NULL AND excluded.marked_end > l.deleted_end
                THEN excluded.marked_milliseconds ELSE l.marked_milliseconds END,
            retired_milliseconds = coalesce(l.retired_milliseconds, excluded.retired_milliseconds)
        """)

    static let forgetLogBelow = Statement(
        "forget_log_below",
        """
        UPDATE millrace.log_garbage SET
            deleted_end = greatest(deleted_end, $2),
            marked_end = CASE WHEN marked_end > $2 THEN marked_end END,
            marked_milliseconds = CASE WHEN marked_end > $2 THEN marked_milliseconds END
        WHERE channel = $1 AND $2 <= marked_end
        """)

    static let forgetStreamlets = Statement(
        "forget_streamlets",
        """
        SELECT coalesce((
            SELECT millrace.forget_streamlets(id, ARRAY['closed'], $2) FROM millrace.channel
            WHERE id = $1 AND state = 'retired'), 0)
        """)

    static let forgetChannel = Statement(
        "forget_channel", "SELECT millrace.forget_channel($1)")

    // MARK: Leases

    static let leases = Statement(
        "leases",
        """
        SELECT name, holder, renewals FROM millrace.lease WHERE starts_with(name, $1)
        ORDER BY name
        """)
}
