// SPDX-License-Identifier: Apache-2.0

/// Claim and flush: how a stream comes to a channel, and how its records leave the log.
///
/// Both lock the channel before they lock streams, as the operations of migration 2 do.
let migration0003 = Migration(
    number: 3, name: "claim and flush",
    sql: #"""
        CREATE FUNCTION millrace.claim(p_stream uuid, p_channel bigint)
        RETURNS TABLE (
            outcome text, held_number bigint, held_channel bigint, held_address text,
            held_is_active boolean, info millrace.stream_info
        ) LANGUAGE plpgsql AS $$
        DECLARE
            wanted millrace.stream;
            held millrace.streamlet;
        BEGIN
            PERFORM FROM millrace.channel WHERE id = p_channel AND state = 'active' FOR SHARE;
            IF NOT FOUND THEN
                outcome := 'inactive';
                RETURN NEXT;
                RETURN;
            END IF;
            SELECT * INTO wanted FROM millrace.stream WHERE id = p_stream FOR NO KEY UPDATE;
            IF NOT FOUND THEN
                outcome := 'none';
            ELSIF wanted.deleted_milliseconds IS NOT NULL THEN
                outcome := 'deleting';
            END IF;
            IF outcome IS NOT NULL THEN
                RETURN NEXT;
                RETURN;
            END IF;
            -- An open streamlet comes before a prepared one.
            SELECT * INTO held FROM millrace.streamlet
            WHERE stream = p_stream AND state IN ('open', 'prepared') ORDER BY number LIMIT 1;
            IF NOT FOUND THEN
                outcome := 'claimed';
                held_number := wanted.streamlet_count;
                INSERT INTO millrace.streamlet (
                    stream, number, channel, start_seq_num, flushed_end, state)
                VALUES (
                    p_stream, held_number, p_channel, wanted.tail_seq_num, wanted.tail_seq_num,
                    'open');
                UPDATE millrace.stream SET streamlet_count = streamlet_count + 1
                WHERE id = p_stream;
            ELSE
                held_number := held.number;
                IF held.state = 'open' AND held.channel = p_channel THEN
                    outcome := 'claimed';
                ELSE
                    outcome := 'owned';
                    SELECT c.id, c.address, c.state = 'active'
                    INTO held_channel, held_address, held_is_active
                    FROM millrace.channel c WHERE c.id = held.channel;
                END IF;
            END IF;
            SELECT i.* INTO info FROM millrace.stream_info i WHERE i.id = p_stream;
            RETURN NEXT;
        END $$;

        -- p_parts: stream, number, start, seq_num, timestamp, token, token_position, trim_point,
        -- closes. p_segments: the columns of millrace.segment.
        CREATE FUNCTION millrace.flush(
            p_channel bigint, p_recovery boolean, p_flushed_end millrace.u64, p_parts json,
            p_segments json
        ) RETURNS TABLE (outcome text, misfit uuid) LANGUAGE plpgsql
        -- A session keeps its plans, also from when the tables were small: always use the keys.
        SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off
        AS $$
        DECLARE
            repeated boolean;
        BEGIN
            PERFORM FROM millrace.channel
            WHERE id = p_channel AND state = CASE WHEN p_recovery THEN 'sealed' ELSE 'active' END
            FOR NO KEY UPDATE;
            IF NOT FOUND THEN
                outcome := 'inactive';
                RETURN NEXT;
                RETURN;
            END IF;
            PERFORM FROM millrace.stream
            WHERE id IN (SELECT p.stream FROM json_to_recordset(p_parts) AS p (stream uuid))
            ORDER BY id FOR NO KEY UPDATE;

            SELECT
                coalesce(bool_and(fit.repeats), true),
                (array_agg(fit.stream ORDER BY fit.place) FILTER (WHERE NOT fit.applies))[1]
            INTO repeated, misfit
            FROM (
                SELECT
                    p.stream, p.place,
                    coalesce(t.state = 'open' AND t.flushed_end = p.start, false) AS applies,
                    coalesce(
                        t.flushed_end >= p.seq_num
                        AND (NOT p.closes OR t.end_seq_num = p.seq_num), false) AS repeats
                FROM ROWS FROM (
                    json_to_recordset(p_parts) AS (
                        stream uuid, number bigint, start numeric, seq_num numeric, closes boolean)
                ) WITH ORDINALITY AS p (stream, number, start, seq_num, closes, place)
                LEFT JOIN millrace.streamlet t
                    ON t.stream = p.stream AND t.number = p.number AND t.channel = p_channel
            ) fit;
            IF misfit IS NOT NULL AND NOT repeated THEN
                outcome := 'misfit';
                RETURN NEXT;
                RETURN;
            END IF;

            IF misfit IS NULL THEN
                PERFORM millrace.apply_flush(p_parts, p_segments);
            END IF;
            UPDATE millrace.channel SET flushed_end = greatest(flushed_end, p_flushed_end)
            WHERE id = p_channel;
            outcome := 'done';
            RETURN NEXT;
        END $$;

        -- The caller has locked the channel and the streams, and found every part contiguous.
        CREATE FUNCTION millrace.apply_flush(p_parts json, p_segments json)
        RETURNS void LANGUAGE plpgsql AS $$
        BEGIN
            UPDATE millrace.streamlet t SET
                flushed_end = p.seq_num,
                end_seq_num = CASE WHEN p.closes THEN p.seq_num END,
                state = CASE WHEN p.closes THEN 'closed' ELSE 'open' END
            FROM json_to_recordset(p_parts) AS p (
                stream uuid, number bigint, seq_num numeric, closes boolean)
            WHERE t.stream = p.stream AND t.number = p.number;

            UPDATE millrace.stream s SET
                tail_seq_num = greatest(s.tail_seq_num, p.seq_num),
                tail_timestamp = CASE
                    WHEN p.seq_num > s.tail_seq_num THEN p.timestamp ELSE s.tail_timestamp END,
                fencing_token = CASE
                    WHEN p.token_position > s.fencing_token_position THEN p.token
                    ELSE s.fencing_token END,
                fencing_token_position = greatest(s.fencing_token_position, p.token_position),
                trim_point = greatest(s.trim_point, p.trim_point)
            FROM json_to_recordset(p_parts) AS p (
                stream uuid, seq_num numeric, "timestamp" numeric, token text,
                token_position numeric, trim_point numeric)
            WHERE s.id = p.stream;

            INSERT INTO millrace.segment
            SELECT * FROM json_to_recordset(p_segments) AS g (
                stream uuid, start_seq_num numeric, start_timestamp numeric, end_seq_num numeric,
                last_timestamp numeric, bucket text, object text, object_offset numeric,
                object_length numeric, metered_bytes numeric, checksum bigint);
        END $$;
        """#)
