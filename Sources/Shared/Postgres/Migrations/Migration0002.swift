// SPDX-License-Identifier: Apache-2.0

/// The guarded operations that touch more than one row.
///
/// They run under READ COMMITTED: a function takes its row locks first, and every statement in it
/// sees what was committed while it waited. Locks are taken in one order, so that no two callers
/// wait for each other: basin, channel, then streams by id.
let migration0002 = Migration(
    number: 2, name: "operations",
    sql: #"""
        CREATE FUNCTION millrace.provision_basin(
            p_name text, p_defaults jsonb, p_cipher text, p_on_append boolean, p_on_read boolean,
            p_location text, p_key text, p_ensure boolean
        ) RETURNS TABLE (outcome text, info millrace.basin_info) LANGUAGE plpgsql AS $$
        DECLARE
            old millrace.basin;
        BEGIN
            LOOP
                INSERT INTO millrace.basin (
                    name, default_stream_config, stream_cipher, create_stream_on_append,
                    create_stream_on_read, location, creation_key)
                VALUES (
                    p_name, p_defaults, p_cipher, p_on_append, p_on_read, p_location, p_key)
                ON CONFLICT DO NOTHING;
                IF FOUND THEN
                    outcome := 'created';
                    EXIT;
                END IF;
                SELECT * INTO old FROM millrace.basin WHERE name = p_name FOR NO KEY UPDATE;
                CONTINUE WHEN NOT FOUND;
                IF old.deleted_milliseconds IS NOT NULL THEN
                    outcome := 'deleting';
                ELSIF NOT p_ensure THEN
                    outcome := CASE WHEN old.creation_key = p_key THEN 'noop' ELSE 'exists' END;
                ELSIF p_location IS NOT NULL AND p_location IS DISTINCT FROM old.location THEN
                    outcome := 'conflict';
                ELSE
                    outcome := millrace.replace_basin_config(
                        old, p_defaults, p_cipher, p_on_append, p_on_read);
                END IF;
                EXIT;
            END LOOP;
            SELECT i.* INTO info FROM millrace.basin_info i WHERE i.name = p_name;
            RETURN NEXT;
        END $$;

        -- The caller has locked the row `old`.
        CREATE FUNCTION millrace.replace_basin_config(
            old millrace.basin, p_defaults jsonb, p_cipher text, p_on_append boolean,
            p_on_read boolean
        ) RETURNS text LANGUAGE plpgsql AS $$
        BEGIN
            IF (old.default_stream_config, old.create_stream_on_append, old.create_stream_on_read)
                = (p_defaults, p_on_append, p_on_read)
                AND old.stream_cipher IS NOT DISTINCT FROM p_cipher
            THEN
                RETURN 'noop';
            END IF;
            UPDATE millrace.basin SET
                default_stream_config = p_defaults, stream_cipher = p_cipher,
                create_stream_on_append = p_on_append, create_stream_on_read = p_on_read,
                version = version + 1
            WHERE name = old.name;
            RETURN 'updated';
        END $$;

        CREATE FUNCTION millrace.update_basin(
            p_name text, p_version millrace.u64, p_defaults jsonb, p_cipher text,
            p_on_append boolean, p_on_read boolean
        ) RETURNS TABLE (outcome text, info millrace.basin_info) LANGUAGE plpgsql AS $$
        DECLARE
            old millrace.basin;
        BEGIN
            SELECT * INTO old FROM millrace.basin WHERE name = p_name FOR NO KEY UPDATE;
            IF NOT FOUND THEN
                outcome := 'none';
            ELSIF old.deleted_milliseconds IS NOT NULL THEN
                outcome := 'deleting';
            ELSIF old.version <> p_version THEN
                outcome := 'mismatch';
            ELSE
                outcome := millrace.replace_basin_config(
                    old, p_defaults, p_cipher, p_on_append, p_on_read);
            END IF;
            SELECT i.* INTO info FROM millrace.basin_info i WHERE i.name = p_name;
            RETURN NEXT;
        END $$;

        CREATE FUNCTION millrace.provision_stream(
            p_id uuid, p_basin text, p_name text, p_system jsonb, p_wish jsonb, p_key text,
            p_ensure boolean
        ) RETURNS TABLE (outcome text, info millrace.stream_info) LANGUAGE plpgsql AS $$
        DECLARE
            home millrace.basin;
            old millrace.stream;
            resolved jsonb;
        BEGIN
            SELECT * INTO home FROM millrace.basin WHERE name = p_basin FOR SHARE;
            IF NOT FOUND THEN
                outcome := 'no basin';
            ELSIF home.deleted_milliseconds IS NOT NULL THEN
                outcome := 'basin deleting';
            END IF;
            IF outcome IS NOT NULL THEN
                RETURN NEXT;
                RETURN;
            END IF;
            resolved := p_system || home.default_stream_config || p_wish;
            LOOP
                INSERT INTO millrace.stream (id, basin, name, config, cipher, creation_key)
                VALUES (p_id, p_basin, p_name, resolved, home.stream_cipher, p_key)
                ON CONFLICT DO NOTHING;
                IF FOUND THEN
                    outcome := 'created';
                    EXIT;
                END IF;
                SELECT * INTO old FROM millrace.stream
                WHERE basin = p_basin AND name = p_name FOR NO KEY UPDATE;
                IF NOT FOUND AND EXISTS (SELECT FROM millrace.stream WHERE id = p_id) THEN
                    RAISE unique_violation USING MESSAGE = 'the stream''s id is taken';
                END IF;
                CONTINUE WHEN old.id IS NULL;
                IF old.deleted_milliseconds IS NOT NULL THEN
                    outcome := 'deleting';
                ELSIF NOT p_ensure THEN
                    outcome := CASE WHEN old.creation_key = p_key THEN 'noop' ELSE 'exists' END;
                ELSE
                    outcome := millrace.replace_stream_config(old, resolved);
                END IF;
                EXIT;
            END LOOP;
            SELECT i.* INTO info FROM millrace.stream_info i
            WHERE i.basin = p_basin AND i.name = p_name;
            RETURN NEXT;
        END $$;

        -- The caller has locked the row `old`.
        CREATE FUNCTION millrace.replace_stream_config(old millrace.stream, p_config jsonb)
        RETURNS text LANGUAGE plpgsql AS $$
        BEGIN
            IF old.config = p_config THEN
                RETURN 'noop';
            END IF;
            UPDATE millrace.stream SET config = p_config, version = version + 1
            WHERE id = old.id;
            RETURN 'updated';
        END $$;

        CREATE FUNCTION millrace.update_stream(p_id uuid, p_version millrace.u64, p_config jsonb)
        RETURNS TABLE (outcome text, info millrace.stream_info) LANGUAGE plpgsql AS $$
        DECLARE
            home millrace.basin;
            old millrace.stream;
        BEGIN
            SELECT * INTO home FROM millrace.basin
            WHERE name = (SELECT s.basin FROM millrace.stream s WHERE s.id = p_id) FOR SHARE;
            SELECT * INTO old FROM millrace.stream WHERE id = p_id FOR NO KEY UPDATE;
            IF NOT FOUND THEN
                outcome := 'none';
            ELSIF home.deleted_milliseconds IS NOT NULL THEN
                outcome := 'basin deleting';
            ELSIF old.deleted_milliseconds IS NOT NULL THEN
                outcome := 'deleting';
            ELSIF old.version <> p_version THEN
                outcome := 'mismatch';
            ELSE
                outcome := millrace.replace_stream_config(old, p_config);
            END IF;
            SELECT i.* INTO info FROM millrace.stream_info i WHERE i.id = p_id;
            RETURN NEXT;
        END $$;

        CREATE FUNCTION millrace.delete_stream(p_basin text, p_name text)
        RETURNS TABLE (outcome text, info millrace.stream_info) LANGUAGE plpgsql AS $$
        DECLARE
            marked uuid;
        BEGIN
            UPDATE millrace.stream SET
                deleted_milliseconds = coalesce(deleted_milliseconds, millrace.now_milliseconds())
            WHERE basin = p_basin AND name = p_name
            RETURNING id INTO marked;
            IF FOUND THEN
                outcome := 'marked';
            ELSIF EXISTS (SELECT FROM millrace.basin b WHERE b.name = p_basin) THEN
                outcome := 'none';
            ELSE
                outcome := 'no basin';
            END IF;
            SELECT i.* INTO info FROM millrace.stream_info i WHERE i.id = marked;
            RETURN NEXT;
        END $$;

        CREATE FUNCTION millrace.retire_channel(p_channel bigint)
        RETURNS boolean LANGUAGE plpgsql AS $$
        BEGIN
            PERFORM FROM millrace.channel
            WHERE id = p_channel AND state IN ('sealed', 'retired') AND flushed_end >= sealed_at
            FOR NO KEY UPDATE;
            IF NOT FOUND OR EXISTS (
                SELECT FROM millrace.streamlet
                WHERE channel = p_channel AND state IN ('open', 'prepared'))
            THEN
                RETURN false;
            END IF;
            UPDATE millrace.channel SET state = 'retired'
            WHERE id = p_channel AND state = 'sealed';
            RETURN true;
        END $$;
        """#)
