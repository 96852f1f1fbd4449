-- name: server
-- Version and encoding of the server, whether it takes writes, and whether another
-- connection of Herdbook had this session: a proxy that pools transactions.
SELECT
    current_setting('server_version_num')::integer,
    current_setting('server_encoding'),
    current_setting('transaction_read_only'),
    coalesce(current_setting('herdbook.session', true), '') <> '',
    set_config('herdbook.session', 'open', false);

-- name: connection
-- Version of the server, the connection to it, and settings that a crash matters to.
SELECT
    current_setting('server_version'),
    coalesce((SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()), false),
    inet_client_addr() IS NULL OR inet_client_addr() = inet_server_addr(),
    current_setting('fsync'),
    current_setting('full_page_writes');

-- name: search_path
-- Find the tables of the log, and nothing else.
SELECT set_config('search_path', quote_ident(%(schema)s), false);

-- name: schema_usage
-- Whether this user may use a schema; no row if there is none.
SELECT has_schema_privilege(oid, 'USAGE') FROM pg_namespace
WHERE nspname = %(schema)s;

-- name: durable
-- An acknowledged commit survives a crash; stricter settings stay.
SELECT set_config('synchronous_commit', 'on', false)
WHERE current_setting('synchronous_commit') = 'off';

-- name: tables
-- Whether the schema exists, how many tables it has, and whether one is a log.
SELECT
    to_regnamespace(quote_ident(%(schema)s)) IS NOT NULL,
    (
        SELECT count(*) FROM pg_class
        WHERE relnamespace = to_regnamespace(quote_ident(%(schema)s))
    ),
    to_regclass(quote_ident(%(schema)s) || '.herdbook_log') IS NOT NULL;

-- name: schema_version
-- Number of the last migration that was applied, and whether the schema was renamed
-- afterwards: then the functions still use the tables of its former name.
SELECT
    schema_version,
    EXISTS (
        SELECT FROM pg_proc, unnest(proconfig) AS setting
        WHERE
            proname = 'events_follow_the_head'
            AND pronamespace = to_regnamespace(quote_ident(current_schema()))
            AND starts_with(setting, 'search_path=')
            AND replace(setting, '"', '') <> 'search_path=' || current_schema()
    )
FROM herdbook_log;

-- name: use_renamed_schema
-- Let the functions of the log use the tables of their own schema.
DO $$
DECLARE
    function regprocedure;
BEGIN
    FOR function IN
        SELECT oid FROM pg_proc
        WHERE
            pronamespace = to_regnamespace(quote_ident(current_schema()))
            AND EXISTS (
                SELECT FROM unnest(proconfig) AS setting
                WHERE starts_with(setting, 'search_path=')
            )
    LOOP
        EXECUTE 'ALTER FUNCTION ' || function || ' SET search_path FROM CURRENT';
    END LOOP;
END $$;

-- name: set_schema_version
-- Store the number of the last migration that was applied.
UPDATE herdbook_log SET schema_version = %(version)s;

-- name: begin
BEGIN;

-- name: lock_migrations
-- One instance migrates at a time; the lock ends with the transaction.
SELECT pg_advisory_xact_lock(hashtextextended('herdbook migrates ' || %(schema)s, 0));

-- name: commit
COMMIT;

-- name: rollback
ROLLBACK;

-- name: head
-- The end of the log.
SELECT position, hash FROM head;

-- name: state
-- The end of the log and the versions of some streams, from one snapshot.
SELECT position, hash, stream_versions(%(streams)s::text[]) FROM head;

-- name: append_group
-- Write events exactly as they are, if they can follow the head; see the migration.
SELECT is_written AND head_is_at(%(last)s)
FROM append_group(
    %(previous)s,
    %(rows)s::json,
    %(streams)s::text[],
    %(versions)s::bigint[],
    %(pieces)s::json
);

-- name: append_events
-- Write a group of events, if it can follow the head; see the migration.
SELECT
    is_written AND head_is_at(head_position), head_position, head_hash, versions, hashes,
    missed, lost
FROM append_events(
    %(previous)s, %(streams)s, %(event_streams)s, %(event_versions)s, %(ids)s,
    %(types)s, %(schemas)s, %(data)s, %(times)s, %(recorded_at)s, %(actors)s,
    %(causes)s, %(correlations)s, %(causations)s, %(hashes)s, %(before)s, %(after)s,
    %(leases)s::text[], %(holders)s::text[], %(known)s
);

-- name: stream_versions
-- The versions of some streams.
SELECT stream_versions(%(streams)s::text[]);

-- name: events_by_id
-- Events with the given ids.
SELECT
    position, stream, version, event_id, type, schema, data, occurred_at,
    recorded_at, actor, cause, correlation_id, causation_id, hash
FROM events
WHERE event_id = ANY(%(ids)s::text[]);

-- name: stream
-- A page of one stream.
SELECT
    position, stream, version, event_id, type, schema, data, occurred_at,
    recorded_at, actor, cause, correlation_id, causation_id, hash
FROM events
WHERE stream = %(stream)s AND version > %(after)s
ORDER BY version
LIMIT %(limit)s;

-- name: log
-- A page of the whole log.
SELECT
    position, stream, version, event_id, type, schema, data, occurred_at,
    recorded_at, actor, cause, correlation_id, causation_id, hash
FROM events
WHERE position > %(after)s
ORDER BY position
LIMIT %(limit)s;

-- name: filtered_log
-- A page of the log, filtered by stream prefix and types (null for all types).
SELECT
    position, stream, version, event_id, type, schema, data, occurred_at,
    recorded_at, actor, cause, correlation_id, causation_id, hash
FROM events
WHERE
    position > %(after)s
    AND starts_with(stream, %(prefix)s)
    AND (%(types)s::text[] IS NULL OR type = ANY(%(types)s::text[]))
ORDER BY position
LIMIT %(limit)s;

-- name: load_view
-- The snapshot of a view.
SELECT name, version, position, hash, data, checksum
FROM views
WHERE name = %(name)s;

-- name: save_view
-- Insert or replace the snapshot of a view.
INSERT INTO views (name, version, position, hash, data, checksum)
VALUES (
    %(name)s, %(version)s, %(position)s, %(hash)s, %(data)s, %(checksum)s
)
ON CONFLICT (name) DO UPDATE SET
    version = excluded.version,
    position = excluded.position,
    hash = excluded.hash,
    data = excluded.data,
    checksum = excluded.checksum;

-- name: keep_view
-- Insert or replace a snapshot at its position.
INSERT INTO kept_views (name, version, position, hash, data, checksum)
VALUES (
    %(name)s, %(version)s, %(position)s, %(hash)s, %(data)s, %(checksum)s
)
ON CONFLICT (name, position, version) DO UPDATE SET
    hash = excluded.hash,
    data = excluded.data,
    checksum = excluded.checksum;

-- name: kept_views
-- The kept snapshots of a view, without their data.
SELECT version, position, octet_length(data)
FROM kept_views
WHERE name = %(name)s
ORDER BY position, version;

-- name: load_kept_view
-- A kept snapshot, in the columns of load_view.
SELECT name, version, position, hash, data, checksum
FROM kept_views
WHERE name = %(name)s AND version = %(version)s AND position = %(position)s;

-- name: drop_views
-- Delete kept snapshots.
DELETE FROM kept_views
WHERE
    name = %(name)s
    AND version = %(version)s
    AND position = ANY(%(positions)s::bigint[]);

-- name: triggers
-- The triggers of the log that are enabled.
SELECT tgname::text FROM pg_trigger
WHERE
    NOT tgisinternal
    AND tgenabled IN ('O', 'A')
    AND tgrelid IN (to_regclass('events'), to_regclass('head'));

-- name: newest
-- The newest event, without the head row.
SELECT position, hash FROM events ORDER BY position DESC LIMIT 1;

-- name: recorded_at
-- When the newest events were recorded, newest first.
SELECT recorded_at FROM events ORDER BY position DESC LIMIT %(limit)s;

-- name: size
-- Bytes of the tables of the log.
SELECT pg_total_relation_size('events')
    + pg_total_relation_size('views')
    + pg_total_relation_size('kept_views');

-- name: hold_instance
-- Take the lock of an instance for this session; false if another session has it.
SELECT pg_try_advisory_lock(hashtextextended('herdbook instance ' || %(id)s, 0));

-- name: end_holder
-- End the session that has the lock of an instance.
SELECT pg_terminate_backend(pid) FROM pg_locks
WHERE
    locktype = 'advisory'
    AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
    AND objsubid = 1
    AND (classid::bigint << 32 | objid::bigint)
    = hashtextextended('herdbook instance ' || %(id)s, 0);

-- name: hold_lease
-- Take a lease for this session, unless it has it; false if another session has it.
SELECT CASE
    WHEN lease_is_held(%(lease)s, %(holder)s) THEN true
    ELSE pg_try_advisory_lock(
        hashtextextended('herdbook lease ' || current_schema() || ' ' || %(lease)s, 0)
    )
END;

-- name: holds_lease
-- Whether this session has a lease: no other one has the lock of its instance.
SELECT lease_is_held(%(lease)s, %(holder)s);

-- name: release_lease
-- Release a lease of this session.
SELECT pg_advisory_unlock(
    hashtextextended('herdbook lease ' || current_schema() || ' ' || %(lease)s, 0)
);

-- name: lease_holders
-- The instances whose sessions have some leases, and where they run.
SELECT wanted.lease, instances.id, instances.host, instances.process
FROM unnest(%(leases)s::text[]) AS wanted (lease)
INNER JOIN pg_locks AS lock
    ON (lock.classid::bigint << 32 | lock.objid::bigint)
    = hashtextextended('herdbook lease ' || current_schema() || ' ' || wanted.lease, 0)
INNER JOIN pg_locks AS presence
    ON lock.pid = presence.pid AND lock.database = presence.database
INNER JOIN instances
    ON (presence.classid::bigint << 32 | presence.objid::bigint)
    = hashtextextended('herdbook instance ' || instances.id, 0)
WHERE
    lock.locktype = 'advisory'
    AND lock.granted
    AND lock.objsubid = 1
    AND lock.database = (SELECT oid FROM pg_database WHERE datname = current_database())
    AND presence.locktype = 'advisory'
    AND presence.objsubid = 1;

-- name: end_frozen_holder
-- End the session that has a lease if its instance has not noted for a while that it
-- is running: a process that is stopped keeps its connection, and so the lock.
SELECT pg_terminate_backend(lease.pid) FROM pg_locks AS lease
INNER JOIN pg_locks AS presence ON lease.pid = presence.pid
INNER JOIN instances
    ON (presence.classid::bigint << 32 | presence.objid::bigint)
    = hashtextextended('herdbook instance ' || instances.id, 0)
WHERE
    lease.locktype = 'advisory'
    AND lease.database = (
        SELECT oid FROM pg_database WHERE datname = current_database()
    )
    AND lease.granted
    AND lease.objsubid = 1
    AND (lease.classid::bigint << 32 | lease.objid::bigint)
    = hashtextextended('herdbook lease ' || current_schema() || ' ' || %(lease)s, 0)
    AND presence.locktype = 'advisory'
    AND presence.objsubid = 1
    AND instances.seen_at < clock_timestamp() - make_interval(secs => %(frozen_s)s);

-- name: note_instance
-- Note that an instance is running, and which streams it changes.
INSERT INTO instances (id, streams, host, process)
VALUES (%(id)s, %(streams)s::text[], %(host)s, %(process)s)
ON CONFLICT (id) DO UPDATE SET
    streams = excluded.streams,
    seen_at = clock_timestamp();

-- name: remove_instance
-- Remove an instance that ends.
DELETE FROM instances WHERE id = %(id)s;

-- name: remove_old_instances
-- Remove the instances that were killed long ago.
DELETE FROM instances WHERE seen_at < clock_timestamp() - interval '1 day';

-- name: living
-- The instances that hold their locks or were seen lately, and their streams.
SELECT id, streams FROM instances
WHERE
    seen_at > clock_timestamp() - make_interval(secs => %(grace_s)s)
    OR EXISTS (
        SELECT FROM pg_locks
        WHERE
            locktype = 'advisory'
            AND database = (
                SELECT oid FROM pg_database WHERE datname = current_database()
            )
            AND objsubid = 1
            AND (classid::bigint << 32 | objid::bigint)
            = hashtextextended('herdbook instance ' || instances.id, 0)
    );
