// SPDX-License-Identifier: Apache-2.0

/// What background work keeps: garbage on its way out, and since when things are as they are.
let migration0020 = Migration(
    number: 20, name: "housekeeping",
    sql: #"""
        -- When the row came, later than any of its records arrived; of a compacted segment, when
        -- the youngest of its inputs came.
        ALTER TABLE millrace.segment
            ADD COLUMN created_milliseconds millrace.u64 NOT NULL
                DEFAULT millrace.now_milliseconds(),
            ALTER COLUMN object TYPE text COLLATE "C";
        CREATE INDEX segment_by_object ON millrace.segment (object, bucket);
        -- Those that compaction may take.
        CREATE INDEX segment_small ON millrace.segment (stream, start_seq_num)
            WHERE object_length < 8388608;

        CREATE INDEX stream_deleted ON millrace.stream (id) WHERE deleted_milliseconds IS NOT NULL;
        CREATE INDEX basin_deleted ON millrace.basin (name) WHERE deleted_milliseconds IS NOT NULL;

        -- Objects that lost a row. Once condemned they get no other, and are deleted.
        CREATE TABLE millrace.garbage (
            bucket text NOT NULL,
            object text COLLATE "C" NOT NULL,
            is_condemned boolean NOT NULL DEFAULT false,
            since_milliseconds millrace.u64 NOT NULL DEFAULT millrace.now_milliseconds(),
            PRIMARY KEY (object, bucket)
        );

        CREATE FUNCTION millrace.refuse_condemned() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            IF EXISTS (
                SELECT FROM inserted i
                JOIN millrace.garbage g ON g.object = i.object AND g.bucket = i.bucket
                WHERE g.is_condemned)
            THEN
                RAISE EXCEPTION 'a segment lies in an object that is to be deleted';
            END IF;
            RETURN NULL;
        END $$;
        CREATE TRIGGER segment_is_not_condemned AFTER INSERT ON millrace.segment
            REFERENCING NEW TABLE AS inserted
            FOR EACH STATEMENT EXECUTE FUNCTION millrace.refuse_condemned();

        -- Streams found empty, with which tail and since when.
        CREATE TABLE millrace.empty_stream (
            stream uuid PRIMARY KEY REFERENCES millrace.stream ON DELETE CASCADE,
            tail_seq_num millrace.u64 NOT NULL,
            since_milliseconds millrace.u64 NOT NULL
        );

        -- Chunks below deleted_end are gone; those below marked_end go once the mark is old enough.
        CREATE TABLE millrace.log_garbage (
            channel bigint PRIMARY KEY REFERENCES millrace.channel,
            deleted_end millrace.u64 NOT NULL DEFAULT 0,
            marked_end millrace.u64,
            marked_milliseconds millrace.u64,
            retired_milliseconds millrace.u64,
            is_gone boolean NOT NULL DEFAULT false,
            CHECK (marked_end > deleted_end),
            CHECK ((marked_end IS NULL) = (marked_milliseconds IS NULL))
        );
        """#)
