-- name: application_id
-- The id of the program that owns the file.
PRAGMA application_id;

-- name: claim
-- Mark a new, empty file as a Herdbook log.
PRAGMA application_id = 0x48455244;

-- name: page_count
-- Size of the file in pages; 0 for a new file.
PRAGMA page_count;

-- name: page_size
-- Bytes per page.
PRAGMA page_size;

-- name: freelist_count
-- Pages of the file that are not in use.
PRAGMA freelist_count;

-- name: user_version
-- Number of the last migration that was applied.
PRAGMA user_version;

-- name: journal_mode
-- The journal mode, which must be wal.
PRAGMA journal_mode;

-- name: synchronous
-- The sync mode: 2 (FULL) syncs every commit.
PRAGMA synchronous;

-- name: query_only
-- Make a connection read-only.
PRAGMA query_only = ON;

-- name: data_version
-- A number that changes when another connection commits.
PRAGMA data_version;

-- name: checkpoint
-- Move the write-ahead log into the file, as far as no reader blocks it.
PRAGMA wal_checkpoint(PASSIVE);

-- name: hash_at
-- The hash of one event, and the position of the last event, without the head row.
SELECT
    (SELECT hash FROM events WHERE position = :position),
    (SELECT coalesce(max(position), 0) FROM events);

-- name: integrity
-- The problems that SQLite finds in the file; one row "ok" if there are none.
PRAGMA integrity_check;

-- name: schema
-- Every table, index and trigger with its SQL and its table.
SELECT name, sql, tbl_name FROM sqlite_schema WHERE sql IS NOT NULL ORDER BY name;

-- name: begin
-- Take the write lock now rather than at the first write.
BEGIN IMMEDIATE;

-- name: commit
-- Commit the transaction.
COMMIT;

-- name: head
-- The end of the log.
SELECT position, hash FROM head;

-- name: insert_event
-- Write an event, if the log ends with the event before it, whose hash is the parameter
-- before the last: else the column without a value is refused.
INSERT INTO events (
    position, stream, version, event_id, type, schema, data, occurred_at,
    recorded_at, actor, cause, correlation_id, causation_id, hash
)
VALUES (
    ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?,
    CASE WHEN (SELECT hash FROM head) = ? THEN ? END
);

-- name: stream_version
-- The version of one stream.
SELECT coalesce(
    (SELECT max(version) FROM events WHERE stream = :stream),
    (SELECT version FROM archived_streams WHERE stream = :stream),
    0
);

-- name: stream_versions
-- The versions of some streams.
SELECT
    value,
    coalesce(
        (SELECT max(version) FROM events WHERE stream = value),
        (SELECT version FROM archived_streams WHERE stream = value),
        0
    )
FROM json_each(:streams);

-- name: events_by_id
-- Events with the given ids.
SELECT
    position, stream, version, event_id, type, schema, data, occurred_at,
    recorded_at, actor, cause, correlation_id, causation_id, hash
FROM events
WHERE event_id IN (SELECT value FROM json_each(:ids));

-- name: stream
-- A page of one stream.
SELECT
    position, stream, version, event_id, type, schema, data, occurred_at,
    recorded_at, actor, cause, correlation_id, causation_id, hash
FROM events
WHERE stream = :stream AND version > :after
ORDER BY version
LIMIT :limit;

-- name: log
-- A page of the whole log.
SELECT
    position, stream, version, event_id, type, schema, data, occurred_at,
    recorded_at, actor, cause, correlation_id, causation_id, hash
FROM events
WHERE position > :after
ORDER BY position
LIMIT :limit;

-- name: filtered_log
-- A page of the log, filtered by stream prefix and types (null for all types).
SELECT
    position, stream, version, event_id, type, schema, data, occurred_at,
    recorded_at, actor, cause, correlation_id, causation_id, hash
FROM events
WHERE
    position > :after
    AND substr(stream, 1, length(:prefix)) = :prefix
    AND (:types IS NULL OR type IN (SELECT value FROM json_each(:types)))
ORDER BY position
LIMIT :limit;

-- name: load_view
-- The snapshot of a view.
SELECT name, version, position, hash, data, checksum
FROM views
WHERE name = :name;

-- name: view_names
-- The names of all snapshots.
SELECT name FROM views;

-- name: use_mark
-- The mark of a log in use (use_mark.py), and where a copy of it ends.
SELECT
    version,
    hash,
    CASE
        WHEN version = 1 THEN position
        ELSE (SELECT coalesce(max(position), 0) FROM events)
    END
FROM views
WHERE name = 'in use';

-- name: set_use_mark
-- Mark the log as in use.
INSERT INTO views (name, version, position, hash, data)
VALUES ('in use', 0, 0, :inode, x'')
ON CONFLICT (name) DO UPDATE SET hash = excluded.hash
WHERE version = 0 AND hash <> excluded.hash;

-- name: mark_copy
-- Record that the file is a copy of a log in use without its -wal, and where it ends.
UPDATE views
SET version = 1, position = (SELECT coalesce(max(position), 0) FROM events)
WHERE name = 'in use' AND version = 0;

-- name: remove_use_mark
-- Remove the mark of a log in use.
DELETE FROM views WHERE name = 'in use';

-- name: save_view
-- Insert or replace the snapshot of a view.
INSERT INTO views (name, version, position, hash, data, checksum)
VALUES (:name, :version, :position, :hash, :data, :checksum)
ON CONFLICT (name) DO UPDATE SET
    version = excluded.version,
    position = excluded.position,
    hash = excluded.hash,
    data = excluded.data,
    checksum = excluded.checksum;

-- name: keep_view
-- Insert or replace a snapshot at its position.
INSERT INTO kept_views (name, version, position, hash, size, checksum, data)
VALUES (:name, :version, :position, :hash, length(:data), :checksum, :data)
ON CONFLICT (name, position, version) DO UPDATE SET
    hash = excluded.hash,
    size = excluded.size,
    checksum = excluded.checksum,
    data = excluded.data;

-- name: kept_views
-- The kept snapshots of a view, without their data.
SELECT version, position, size
FROM kept_views
WHERE name = :name
ORDER BY position, version;

-- name: load_kept_view
-- A kept snapshot, in the columns of load_view.
SELECT name, version, position, hash, data, checksum
FROM kept_views
WHERE name = :name AND version = :version AND position = :position;

-- name: drop_views
-- Delete kept snapshots.
DELETE FROM kept_views
WHERE
    name = :name
    AND version = :version
    AND position IN (SELECT value FROM json_each(:positions));

-- name: boundary
-- Position of the last archived event; 0 without archives.
SELECT coalesce(max(last), 0) FROM archives;

-- name: archives
-- All archives, in order.
SELECT
    first, last, previous, hash, origin, recorded_at, file, directory, size,
    sha256, blocks, roots
FROM archives
ORDER BY last;

-- name: archived_stream
-- The last archived version of a stream.
SELECT version FROM archived_streams WHERE stream = :stream;

-- name: archived_streams
-- The last archived version of every archived stream.
SELECT stream, version FROM archived_streams;

-- name: archived_ids
-- Positions of archived events with the given ids.
SELECT position FROM archived_ids
WHERE event_id IN (SELECT value FROM json_each(:ids));

-- name: add_archive
-- Record an archive, whose events the file has; then they may be deleted.
INSERT INTO archives (
    first, last, previous, hash, origin, recorded_at, file, directory, size,
    sha256, blocks, roots
)
VALUES (
    :first, :last, :previous, :hash, :origin, :recorded_at, :file, :directory,
    :size, :sha256, :blocks, :roots
);

-- name: keep_ids
-- Keep the ids of some events, which stay in the log until they are archived.
INSERT OR IGNORE INTO archived_ids (event_id, position)
SELECT event_id, position FROM events
WHERE position > :after AND position <= :until
RETURNING position;

-- name: archive_streams
-- Keep the versions of streams at the end of an archive: pairs of name and version.
INSERT INTO archived_streams (stream, version)
SELECT value ->> 0, value ->> 1 FROM json_each(:streams) WHERE true
ON CONFLICT (stream) DO UPDATE SET version = excluded.version;

-- name: keep_boundary_view
-- Keep the state of a view at the boundary of an archive.
INSERT OR REPLACE INTO boundary_views (
    position, name, version, hash, data, checksum
)
VALUES (:position, :name, :version, :hash, :data, :checksum);

-- name: boundary_views
-- The states of the views at the end of the last archive up to a position.
SELECT name, version, position, hash, data, checksum
FROM boundary_views
WHERE position = (SELECT max(last) FROM archives WHERE last <= :position);

-- name: has_archived
-- Whether the log still has events that are archived.
SELECT coalesce(
    (SELECT min(position) FROM events)
    <= (SELECT coalesce(max(last), 0) FROM archives),
    0
);

-- name: delete_archived
-- Delete some of the archived events, the oldest first.
DELETE FROM events
WHERE position IN (
    SELECT position FROM events
    WHERE position <= (SELECT coalesce(max(last), 0) FROM archives)
    ORDER BY position
    LIMIT :limit
)
RETURNING position;

-- name: truncate_wal
-- Move the write-ahead log into the file, and empty it.
PRAGMA wal_checkpoint(TRUNCATE);

-- name: vacuum
-- Rebuild the file without its free pages.
VACUUM;
