// SPDX-License-Identifier: Apache-2.0

/// What the waits of background work rest on, so that no two processes can differ about it: how
/// long objects stay for reads is written down here, and read by those who read and those who
/// delete; and whether a transaction is over is known here, not measured by any clock.
let migration0025 = Migration(
    number: 25, name: "waits",
    sql: #"""
        ALTER TABLE millrace.garbage
            -- Condemned: transactions from here on certainly see that it is.
            ADD COLUMN horizon xid8,
            -- No segment ever referred to it.
            ADD COLUMN is_orphan boolean NOT NULL DEFAULT false,
            -- The object is deleted. Whoever stored it may still come to make it known, however
            -- late, and is refused.
            ADD COLUMN is_gone boolean NOT NULL DEFAULT false;
        CREATE INDEX garbage_present ON millrace.garbage (object, bucket) WHERE NOT is_gone;
        CREATE INDEX garbage_gone ON millrace.garbage (since_milliseconds) WHERE is_gone;

        -- Takes a condemned object's name away once the object is deleted. Those of orphans stay,
        -- for twice as long as a seal: a writer may come back for as long.
        CREATE FUNCTION millrace.forget_object(p_bucket text, p_object text)
        RETURNS void LANGUAGE plpgsql AS $$
        BEGIN
            DELETE FROM millrace.garbage
            WHERE bucket = p_bucket AND object = p_object AND is_condemned AND NOT is_orphan;
            UPDATE millrace.garbage
            SET is_gone = true, since_milliseconds = millrace.now_milliseconds()
            WHERE bucket = p_bucket AND object = p_object AND is_condemned AND is_orphan
                AND NOT is_gone;
            DELETE FROM millrace.garbage WHERE (object, bucket) IN (
                SELECT object, bucket FROM millrace.garbage
                WHERE is_gone AND since_milliseconds
                    < (SELECT millrace.now_milliseconds() - 60 * 86400000::numeric)
                ORDER BY since_milliseconds LIMIT 10 FOR UPDATE SKIP LOCKED);
        END $$;

        -- For how long a channel of this incarnation trusts its log without its lease.
        ALTER TABLE millrace.channel
            ADD COLUMN unsure_milliseconds millrace.u64 NOT NULL DEFAULT 86400000;

        -- How long objects stay that nothing refers to any more; and, while that changes, the
        -- least and the most of what anybody may still believe.
        ALTER TABLE millrace.cell
            ADD COLUMN plan_wait millrace.u64 NOT NULL DEFAULT 600000,
            ADD COLUMN plan_wait_shortest millrace.u64 NOT NULL DEFAULT 600000,
            ADD COLUMN plan_wait_longest millrace.u64 NOT NULL DEFAULT 600000,
            ADD COLUMN plan_wait_since millrace.u64 NOT NULL DEFAULT 0;

        CREATE FUNCTION millrace.plan_wait()
        RETURNS TABLE (shortest millrace.u64, longest millrace.u64) LANGUAGE sql VOLATILE AS $$
            SELECT
                CASE WHEN is_changing THEN plan_wait_shortest ELSE plan_wait END,
                CASE WHEN is_changing THEN plan_wait_longest ELSE plan_wait END
            FROM (
                -- Everybody asks at least once a minute.
                SELECT *, millrace.age(plan_wait_since) < plan_wait_longest + 60000 AS is_changing
                FROM millrace.cell
            ) this
        $$;

        CREATE FUNCTION millrace.set_plan_wait(p_wait millrace.u64)
        RETURNS void LANGUAGE plpgsql AS $$
        DECLARE
            this millrace.cell;
            believed record;
        BEGIN
            SELECT * INTO this FROM millrace.cell FOR UPDATE;
            IF this.plan_wait = p_wait THEN
                RETURN;
            END IF;
            IF NOT EXISTS (SELECT FROM millrace.channel) THEN
                -- Nothing was ever stored: there is nothing to read.
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
