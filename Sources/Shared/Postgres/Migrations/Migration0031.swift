// SPDX-License-Identifier: Apache-2.0

/// Rows of what is over go: closed streamlets, once nobody can ask again whether they were closed;
/// channels, with the last object of their log. Numbers are never used again: a stream counts its
/// streamlets, and channels have a sequence.
let migration0031 = Migration(
    number: 31, name: "forgetting",
    sql: #"""
        -- Takes up to p_limit streamlets of a channel away, in no order. Those that somebody else
        -- has locked go with their stream.
        CREATE FUNCTION millrace.forget_streamlets(
            p_channel bigint, p_states text[], p_limit bigint
        ) RETURNS bigint LANGUAGE plpgsql AS $$
        DECLARE
            gone_count bigint;
        BEGIN
            -- By their places, which stay while they are locked: whatever a plan thinks of the
            -- tables, they are looked for once.
            DELETE FROM millrace.streamlet WHERE ctid = ANY (ARRAY(
                SELECT ctid FROM millrace.streamlet
                WHERE channel = p_channel AND state = ANY (p_states)
                LIMIT p_limit FOR UPDATE SKIP LOCKED));
            GET DIAGNOSTICS gone_count = ROW_COUNT;
            RETURN gone_count;
        END $$;

        -- As of migration 3; and a channel asks for a flush only once its last one is answered, so
        -- that what earlier ones closed need not be known any more. Recoverers repeat each other;
        -- and what brings nothing new may be an old flush that comes late.
        CREATE OR REPLACE FUNCTION millrace.flush(
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
                IF NOT p_recovery AND NOT repeated THEN
                    PERFORM millrace.forget_streamlets(p_channel, ARRAY['closed'], 1000);
                END IF;
                PERFORM millrace.apply_flush(p_parts, p_segments);
            END IF;
            UPDATE millrace.channel SET flushed_end = greatest(flushed_end, p_flushed_end)
            WHERE id = p_channel;
            outcome := 'done';
            RETURN NEXT;
        END $$;

        -- Of a log that is gone, the seal with it: whether its channel is gone now, too.
        CREATE FUNCTION millrace.forget_channel(p_channel bigint)
        RETURNS boolean LANGUAGE plpgsql AS $$
        DECLARE
            found_state text;
        BEGIN
            SELECT state INTO found_state FROM millrace.channel WHERE id = p_channel FOR UPDATE;
            IF NOT FOUND THEN
                RETURN true;
            ELSIF found_state <> 'retired' THEN
                RETURN false;
            END IF;
            PERFORM millrace.forget_streamlets(p_channel, ARRAY['closed', 'aborted'], 1000);
            IF EXISTS (SELECT FROM millrace.streamlet WHERE channel = p_channel) THEN
                RETURN false;
            END IF;
            DELETE FROM millrace.log_garbage WHERE channel = p_channel;
            DELETE FROM millrace.channel WHERE id = p_channel;
            RETURN true;
        END $$;

        -- Channels without a log are visited once more, and go.
        ALTER TABLE millrace.log_garbage DROP COLUMN is_gone;

        -- As of migration 25; but a cell without channels may have had some.
        CREATE OR REPLACE FUNCTION millrace.set_plan_wait(p_wait millrace.u64)
        RETURNS void LANGUAGE plpgsql AS $$
        DECLARE
            this millrace.cell;
            believed record;
        BEGIN
            SELECT * INTO this FROM millrace.cell FOR UPDATE;
            IF this.plan_wait = p_wait THEN
                RETURN;
            END IF;
            IF NOT EXISTS (SELECT FROM millrace.channel)
                AND NOT EXISTS (SELECT FROM millrace.segment)
                AND NOT EXISTS (SELECT FROM millrace.garbage)
            THEN
                -- Nothing is stored: there is nothing to read.
                UPDATE millrace.cell
                SET plan_wait = p_wait, plan_wait_shortest = p_wait, plan_wait_longest = p_wait;
                RETURN;
            END IF;
            SELECT * INTO believed FROM millrace.plan_wait();
            UPDATE millrace.cell SET
                plan_wait = p_wait, plan_wait_shortest = least(believed.shortest, p_wait),
                plan_wait_longest = greatest(believed.longest, p_wait),
                plan_wait_since = millrace.now_milliseconds();
        END $$;
        """#)
