-- Archives: events up to the last archive may be deleted, since a file has them. Their
-- ids stay unique, their streams keep their versions, and the state of the views at
-- the boundary stays in the log.

CREATE TABLE archives (
    last INTEGER PRIMARY KEY,
    first INTEGER NOT NULL,
    previous TEXT NOT NULL,
    hash TEXT NOT NULL,
    origin TEXT NOT NULL,
    recorded_at TEXT NOT NULL,
    file TEXT NOT NULL,
    directory TEXT NOT NULL,
    size INTEGER NOT NULL,
    sha256 TEXT NOT NULL,
    blocks BLOB NOT NULL,
    roots BLOB NOT NULL
) STRICT;

CREATE TABLE archived_streams (
    stream TEXT PRIMARY KEY,
    version INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE archived_ids (
    event_id TEXT PRIMARY KEY,
    position INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE boundary_views (
    position INTEGER NOT NULL,
    name TEXT NOT NULL,
    version INTEGER NOT NULL,
    hash TEXT NOT NULL,
    data BLOB NOT NULL,
    checksum TEXT NOT NULL,
    PRIMARY KEY (position, name, version)
) STRICT;

CREATE TRIGGER archives_follow_each_other BEFORE INSERT ON archives
WHEN
    NEW.first IS NOT (SELECT coalesce(max(last), 0) + 1 FROM archives)
    OR NEW.last < NEW.first
    OR NEW.last >= (SELECT position FROM head)
    OR NEW.hash IS NOT (SELECT hash FROM events WHERE position = NEW.last)
BEGIN
    SELECT RAISE(ABORT, 'the archive does not follow the one before it');
END;

CREATE TRIGGER archives_are_not_changed BEFORE UPDATE ON archives
BEGIN
    SELECT RAISE(ABORT, 'archives are never changed');
END;

CREATE TRIGGER archives_are_not_deleted BEFORE DELETE ON archives
BEGIN
    SELECT RAISE(ABORT, 'archives are never deleted');
END;

DROP TRIGGER events_are_not_deleted;

CREATE TRIGGER events_are_not_deleted BEFORE DELETE ON events
WHEN OLD.position > (SELECT coalesce(max(last), 0) FROM archives)
BEGIN
    SELECT RAISE(ABORT, 'events are never deleted');
END;

DROP TRIGGER events_follow_their_stream;

CREATE TRIGGER events_follow_their_stream BEFORE INSERT ON events
WHEN NEW.version IS NOT 1 + coalesce(
    (SELECT max(version) FROM events WHERE stream = NEW.stream),
    (SELECT version FROM archived_streams WHERE stream = NEW.stream),
    0
)
BEGIN
    SELECT RAISE(ABORT, 'the version does not follow the stream');
END;

CREATE TRIGGER events_have_new_ids BEFORE INSERT ON events
WHEN EXISTS (SELECT 1 FROM archived_ids WHERE event_id = NEW.event_id)
BEGIN
    SELECT RAISE(ABORT, 'the event id is archived');
END;

PRAGMA user_version = 5;
