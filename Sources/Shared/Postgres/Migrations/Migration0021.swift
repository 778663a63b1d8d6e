// SPDX-License-Identifier: Apache-2.0

/// The guarded steps of background work. Locks are taken in the order of migration 2; garbage comes
/// last, by key.
let migration0021 = Migration(
    number: 21, name: "housekeeping operations",
    sql: #"""
        -- Milliseconds since `since`, 0 if the clock went back.
        CREATE FUNCTION millrace.age(since millrace.u64) RETURNS millrace.u64
        LANGUAGE sql VOLATILE STRICT AS $$
            SELECT greatest(millrace.now_milliseconds()::numeric - since, 0)::millrace.u64
        $$;

        -- Seconds may be any u64: numeric knows no overflow.
        CREATE FUNCTION millrace.has_passed(seconds numeric, since millrace.u64) RETURNS boolean
        LANGUAGE sql VOLATILE STRICT AS $$ SELECT millrace.age(since) >= seconds * 1000 $$;

        -- A stream's retention age in seconds; NULL if it is infinite.
        CREATE FUNCTION millrace.retention_seconds(config jsonb) RETURNS numeric
        LANGUAGE sql IMMUTABLE AS $$
            SELECT CASE
                WHEN config ->> 'retention' <> 'infinite' THEN (config ->> 'retention')::numeric
            END
        $$;

        -- Takes the lowest segments of a stream away, those below p_below only if it is not NULL.
        CREATE FUNCTION millrace.unlink_segments(
            p_stream uuid, p_below millrace.u64, p_limit bigint
        ) RETURNS bigint LANGUAGE plpgsql AS $$
        DECLARE
            gone_count bigint;
        BEGIN
            WITH gone AS (
                DELETE FROM millrace.segment
                WHERE stream = p_stream AND start_seq_num IN (
                    SELECT start_seq_num FROM millrace.segment
                    WHERE stream = p_stream AND (p_below IS NULL OR end_seq_num <= p_below)
                    ORDER BY start_seq_num LIMIT p_limit)
                RETURNING bucket, object
            ), marked AS (
                INSERT INTO millrace.garbage (bucket, object)
                SELECT DISTINCT bucket, object FROM gone ORDER BY object, bucket
                ON CONFLICT (object, bucket)
                DO UPDATE SET since_milliseconds = millrace.now_milliseconds()
            )
            SELECT count(*) INTO gone_count FROM gone;
            RETURN gone_count;
        END $$;

        CREATE FUNCTION millrace.unlink_trimmed(p_stream uuid, p_limit bigint)
        RETURNS bigint LANGUAGE plpgsql AS $$
        DECLARE
            trimmed millrace.u64;
        BEGIN
            SELECT trim_point INTO trimmed FROM millrace.stream
            WHERE id = p_stream FOR NO KEY UPDATE;
            IF NOT FOUND THEN
                RETURN 0;
            END IF;
            RETURN millrace.unlink_segments(p_stream, trimmed, p_limit);
        END $$;

        CREATE FUNCTION millrace.expire(p_stream uuid)
        RETURNS millrace.u64 LANGUAGE plpgsql AS $$
        DECLARE
            s millrace.stream;
            young millrace.u64;
            boundary millrace.u64;
        BEGIN
            SELECT * INTO s FROM millrace.stream WHERE id = p_stream FOR NO KEY UPDATE;
            IF NOT FOUND OR s.deleted_milliseconds IS NOT NULL
                OR millrace.retention_seconds(s.config) IS NULL
            THEN
                RETURN NULL;
            END IF;
            SELECT start_seq_num INTO young FROM millrace.segment
            WHERE stream = p_stream AND end_seq_num > s.trim_point
                AND NOT millrace.has_passed(
                    millrace.retention_seconds(s.config), created_milliseconds)
            ORDER BY start_seq_num LIMIT 1;
            SELECT end_seq_num INTO boundary FROM millrace.segment
            WHERE stream = p_stream AND end_seq_num > s.trim_point
                AND (young IS NULL OR start_seq_num < young)
            ORDER BY start_seq_num DESC LIMIT 1;
            IF boundary IS NULL THEN
                RETURN NULL;
            END IF;
            UPDATE millrace.stream SET trim_point = greatest(trim_point, boundary)
            WHERE id = p_stream;
            RETURN boundary;
        END $$;

        CREATE FUNCTION millrace.delete_if_empty(p_stream uuid)
        RETURNS text LANGUAGE plpgsql AS $$
        DECLARE
            s millrace.stream;
            seconds numeric;
            seen millrace.u64;
        BEGIN
            SELECT * INTO s FROM millrace.stream WHERE id = p_stream FOR NO KEY UPDATE;
            seconds := coalesce((s.config ->> 'delete_on_empty')::numeric, 0);
            IF s.id IS NULL OR s.deleted_milliseconds IS NOT NULL OR seconds = 0
                OR s.trim_point < s.tail_seq_num
                OR EXISTS (
                    SELECT FROM millrace.streamlet
                    WHERE stream = p_stream AND state IN ('open', 'prepared'))
            THEN
                DELETE FROM millrace.empty_stream WHERE stream = p_stream;
                RETURN 'no';
            END IF;
            SELECT since_milliseconds INTO seen FROM millrace.empty_stream
            WHERE stream = p_stream AND tail_seq_num = s.tail_seq_num;
            IF NOT FOUND THEN
                INSERT INTO millrace.empty_stream (stream, tail_seq_num, since_milliseconds)
                VALUES (p_stream, s.tail_seq_num, millrace.now_milliseconds())
                ON CONFLICT (stream) DO UPDATE SET
                    tail_seq_num = excluded.tail_seq_num,
                    since_milliseconds = excluded.since_milliseconds;
                RETURN 'waiting';
            END IF;
            IF NOT millrace.has_passed(seconds, seen) THEN
                RETURN 'waiting';
            END IF;
            UPDATE millrace.stream SET deleted_milliseconds = millrace.now_milliseconds()
            WHERE id = p_stream;
            DELETE FROM millrace.empty_stream WHERE stream = p_stream;
            RETURN 'deleted';
        END $$;

        CREATE FUNCTION millrace.purge_stream(p_stream uuid, p_limit bigint)
        RETURNS TABLE (outcome text, unlinked bigint) LANGUAGE plpgsql AS $$
        DECLARE
            s millrace.stream;
        BEGIN
            unlinked := 0;
            SELECT * INTO s FROM millrace.stream WHERE id = p_stream FOR UPDATE;
            IF NOT FOUND THEN
                outcome := 'purged';
            ELSIF s.deleted_milliseconds IS NULL THEN
                outcome := 'alive';
            ELSIF EXISTS (
                SELECT FROM millrace.streamlet
                WHERE stream = p_stream AND state IN ('open', 'prepared'))
            THEN
                outcome := 'open';
            ELSE
                unlinked := millrace.unlink_segments(p_stream, NULL, p_limit);
                outcome := 'more';
            END IF;
            IF outcome = 'more' AND unlinked < p_limit THEN
                DELETE FROM millrace.streamlet
                WHERE stream = p_stream AND number IN (
                    SELECT number FROM millrace.streamlet WHERE stream = p_stream
                    ORDER BY number DESC LIMIT p_limit);
                IF NOT EXISTS (SELECT FROM millrace.streamlet WHERE stream = p_stream) THEN
                    DELETE FROM millrace.stream WHERE id = p_stream;
                    outcome := 'purged';
                END IF;
            END IF;
            RETURN NEXT;
        END $$;

        CREATE FUNCTION millrace.purge_basin(p_name text, p_limit bigint)
        RETURNS TABLE (outcome text, marked bigint) LANGUAGE plpgsql AS $$
        DECLARE
            b millrace.basin;
        BEGIN
            marked := 0;
            SELECT * INTO b FROM millrace.basin WHERE name = p_name FOR UPDATE;
            IF NOT FOUND THEN
                outcome := 'purged';
            ELSIF b.deleted_milliseconds IS NULL THEN
                outcome := 'alive';
            ELSIF NOT EXISTS (SELECT FROM millrace.stream WHERE basin = p_name) THEN
                DELETE FROM millrace.basin WHERE name = p_name;
                outcome := 'purged';
            ELSE
                outcome := 'waiting';
                UPDATE millrace.stream SET deleted_milliseconds = millrace.now_milliseconds()
                WHERE id IN (
                    SELECT id FROM millrace.stream
                    WHERE basin = p_name AND deleted_milliseconds IS NULL
                    ORDER BY id LIMIT p_limit FOR NO KEY UPDATE);
                GET DIAGNOSTICS marked = ROW_COUNT;
            END IF;
            RETURN NEXT;
        END $$;

        -- p_inputs, p_output: the columns of millrace.segment.
        CREATE FUNCTION millrace.compact(p_stream uuid, p_inputs json, p_output json)
        RETURNS boolean LANGUAGE plpgsql AS $$
        DECLARE
            s millrace.stream;
            live bigint;
            created millrace.u64;
        BEGIN
            SELECT * INTO s FROM millrace.stream WHERE id = p_stream FOR NO KEY UPDATE;
            IF NOT FOUND OR s.deleted_milliseconds IS NOT NULL THEN
                RETURN false;
            END IF;
            IF EXISTS (SELECT FROM millrace.matching_segments(p_stream, p_output)) THEN
                RETURN true;
            END IF;
            SELECT count(*), max(m.created_milliseconds) INTO live, created
            FROM millrace.matching_segments(p_stream, p_inputs) m
            WHERE m.end_seq_num > s.trim_point;
            IF live <> json_array_length(p_inputs) THEN
                RETURN false;
            END IF;
            WITH gone AS (
                DELETE FROM millrace.segment g
                USING millrace.matching_segments(p_stream, p_inputs) m
                WHERE g.stream = m.stream AND g.start_seq_num = m.start_seq_num
                RETURNING g.bucket, g.object
            )
            INSERT INTO millrace.garbage (bucket, object)
            SELECT DISTINCT bucket, object FROM gone ORDER BY object, bucket
            ON CONFLICT (object, bucket)
            DO UPDATE SET since_milliseconds = millrace.now_milliseconds();
            INSERT INTO millrace.segment
            SELECT o.*, created FROM json_to_recordset(p_output) AS o (
                stream uuid, start_seq_num numeric, start_timestamp numeric, end_seq_num numeric,
                last_timestamp numeric, bucket text, object text, object_offset numeric,
                object_length numeric, metered_bytes numeric, checksum bigint);
            RETURN true;
        END $$;

        -- The segments of a stream that are just as p_rows tells.
        CREATE FUNCTION millrace.matching_segments(p_stream uuid, p_rows json)
        RETURNS SETOF millrace.segment LANGUAGE sql STABLE AS $$
            SELECT g.* FROM json_to_recordset(p_rows) AS p (
                start_seq_num numeric, end_seq_num numeric, bucket text, object text,
                object_offset numeric, object_length numeric, checksum bigint)
            JOIN millrace.segment g ON g.stream = p_stream AND g.start_seq_num = p.start_seq_num
            WHERE g.end_seq_num = p.end_seq_num AND g.bucket = p.bucket AND g.object = p.object
                AND g.object_offset = p.object_offset AND g.object_length = p.object_length
                AND g.checksum = p.checksum
        $$;
        """#)
