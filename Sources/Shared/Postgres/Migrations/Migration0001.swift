// SPDX-License-Identifier: Apache-2.0

/// The tables. Sequence numbers, timestamps and counts are unsigned 64-bit numbers; names sort by
/// bytes; configurations are JSON objects of the leaves that are set.
///
/// The views are the rows as Swift reads them, by position: a later migration may only add columns
/// at their ends.
let migration0001 = Migration(
    number: 1, name: "tables",
    sql: #"""
        CREATE DOMAIN millrace.u64 AS numeric(20, 0)
            CHECK (VALUE >= 0 AND VALUE < 18446744073709551616);

        CREATE FUNCTION millrace.now_milliseconds() RETURNS millrace.u64 LANGUAGE sql VOLATILE AS $$
            SELECT floor(extract(epoch FROM clock_timestamp()) * 1000)::millrace.u64
        $$;

        CREATE TABLE millrace.basin (
            name text COLLATE "C" PRIMARY KEY CHECK (octet_length(name) BETWEEN 1 AND 48),
            default_stream_config jsonb NOT NULL
                CHECK (jsonb_typeof(default_stream_config) = 'object'),
            stream_cipher text,
            create_stream_on_append boolean NOT NULL,
            create_stream_on_read boolean NOT NULL,
            version millrace.u64 NOT NULL DEFAULT 1,
            location text,
            creation_key text,
            created_milliseconds millrace.u64 NOT NULL DEFAULT millrace.now_milliseconds(),
            deleted_milliseconds millrace.u64
        );

        CREATE TABLE millrace.stream (
            id uuid PRIMARY KEY,
            basin text COLLATE "C" NOT NULL REFERENCES millrace.basin,
            name text COLLATE "C" NOT NULL CHECK (octet_length(name) BETWEEN 1 AND 512),
            config jsonb NOT NULL CHECK (jsonb_typeof(config) = 'object'),
            version millrace.u64 NOT NULL DEFAULT 1,
            cipher text,
            -- The state as of the flushed end; each part moves forward by position only.
            tail_seq_num millrace.u64 NOT NULL DEFAULT 0,
            tail_timestamp millrace.u64 NOT NULL DEFAULT 0,
            fencing_token text NOT NULL DEFAULT '',
            fencing_token_position millrace.u64 NOT NULL DEFAULT 0,
            trim_point millrace.u64 NOT NULL DEFAULT 0,
            -- The next streamlet's number: one is never used again, whatever becomes of its row.
            streamlet_count bigint NOT NULL DEFAULT 0,
            creation_key text,
            created_milliseconds millrace.u64 NOT NULL DEFAULT millrace.now_milliseconds(),
            deleted_milliseconds millrace.u64,
            UNIQUE (basin, name)
        ) WITH (fillfactor = 80);

        CREATE TABLE millrace.channel (
            id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
            storage_class text NOT NULL,
            zone text NOT NULL,
            address text NOT NULL,
            state text NOT NULL DEFAULT 'active'
                CHECK (state IN ('active', 'dead', 'sealed', 'retired')),
            renewals millrace.u64 NOT NULL DEFAULT 0,
            bytes_per_second millrace.u64 NOT NULL DEFAULT 0,
            queue_delay_microseconds millrace.u64 NOT NULL DEFAULT 0,
            open_streamlets millrace.u64 NOT NULL DEFAULT 0,
            flushed_end millrace.u64 NOT NULL DEFAULT 0,
            sealed_at millrace.u64,
            started_milliseconds millrace.u64 NOT NULL DEFAULT millrace.now_milliseconds(),
            CHECK (sealed_at >= flushed_end),
            CHECK ((sealed_at IS NOT NULL) = (state IN ('sealed', 'retired')))
        ) WITH (fillfactor = 50);
        CREATE INDEX channel_by_state ON millrace.channel (state, id);

        CREATE TABLE millrace.streamlet (
            stream uuid NOT NULL REFERENCES millrace.stream,
            number bigint NOT NULL CHECK (number BETWEEN 0 AND 4294967295),
            channel bigint NOT NULL REFERENCES millrace.channel,
            start_seq_num millrace.u64 NOT NULL,
            flushed_end millrace.u64 NOT NULL CHECK (flushed_end >= start_seq_num),
            end_seq_num millrace.u64 CHECK (end_seq_num = flushed_end),
            state text NOT NULL CHECK (state IN ('prepared', 'open', 'closed', 'aborted')),
            PRIMARY KEY (stream, number),
            CHECK ((end_seq_num IS NOT NULL) = (state = 'closed'))
        ) WITH (fillfactor = 80);
        -- At most one open streamlet per stream, and at most one prepared.
        CREATE UNIQUE INDEX streamlet_live ON millrace.streamlet (stream, state)
            WHERE state IN ('open', 'prepared');
        CREATE INDEX streamlet_by_channel ON millrace.streamlet (channel, state);

        CREATE TABLE millrace.segment (
            stream uuid NOT NULL REFERENCES millrace.stream,
            start_seq_num millrace.u64 NOT NULL,
            start_timestamp millrace.u64 NOT NULL,
            end_seq_num millrace.u64 NOT NULL CHECK (end_seq_num > start_seq_num),
            last_timestamp millrace.u64 NOT NULL,
            bucket text NOT NULL,
            object text NOT NULL,
            object_offset millrace.u64 NOT NULL,
            object_length millrace.u64 NOT NULL,
            metered_bytes millrace.u64 NOT NULL,
            checksum bigint NOT NULL,
            PRIMARY KEY (stream, start_seq_num)
        );
        -- Timestamps never go back within a stream, so this is also an order by position.
        CREATE INDEX segment_by_timestamp
            ON millrace.segment (stream, last_timestamp, start_seq_num);

        CREATE TABLE millrace.lease (
            name text COLLATE "C" PRIMARY KEY,
            holder text,
            renewals millrace.u64 NOT NULL
        ) WITH (fillfactor = 50);

        CREATE VIEW millrace.basin_info AS
        SELECT
            name,
            default_stream_config ->> 'storage_class' AS storage_class,
            default_stream_config ->> 'retention' AS retention,
            default_stream_config ->> 'timestamping_mode' AS timestamping_mode,
            default_stream_config ->> 'timestamping_uncapped' AS timestamping_uncapped,
            default_stream_config ->> 'delete_on_empty' AS delete_on_empty,
            stream_cipher, create_stream_on_append, create_stream_on_read, version, location,
            created_milliseconds, deleted_milliseconds
        FROM millrace.basin;

        CREATE VIEW millrace.stream_info AS
        SELECT
            s.id, s.basin, s.name,
            s.config ->> 'storage_class' AS storage_class,
            s.config ->> 'retention' AS retention,
            s.config ->> 'timestamping_mode' AS timestamping_mode,
            s.config ->> 'timestamping_uncapped' AS timestamping_uncapped,
            s.config ->> 'delete_on_empty' AS delete_on_empty,
            s.version, s.cipher, s.tail_seq_num, s.tail_timestamp, s.fencing_token,
            s.fencing_token_position, s.trim_point, s.created_milliseconds,
            s.deleted_milliseconds,
            o.number AS owner_streamlet, c.id AS owner_channel, c.address AS owner_address,
            c.state = 'active' AS owner_is_active
        FROM millrace.stream s
        LEFT JOIN millrace.streamlet o ON o.stream = s.id AND o.state = 'open'
        LEFT JOIN millrace.channel c ON c.id = o.channel;
        """#)
