-- The log: immutable events, and the head row that enforces their order.

CREATE TABLE events (
    position INTEGER PRIMARY KEY,
    stream TEXT NOT NULL,
    version INTEGER NOT NULL,
    event_id TEXT NOT NULL UNIQUE,
    type TEXT NOT NULL,
    schema INTEGER NOT NULL,
    data TEXT NOT NULL,
    occurred_at TEXT NOT NULL,
    recorded_at TEXT NOT NULL,
    actor TEXT NOT NULL,
    cause TEXT NOT NULL,
    correlation_id TEXT,
    causation_id TEXT,
    hash TEXT NOT NULL,
    UNIQUE (stream, version)
) STRICT;

CREATE TABLE head (
    id INTEGER PRIMARY KEY CHECK (id = 1),
    position INTEGER NOT NULL,
    hash TEXT NOT NULL
) STRICT;

INSERT INTO head (id, position, hash)
VALUES (1, 0, '0000000000000000000000000000000000000000000000000000000000000000');

CREATE TRIGGER events_follow_the_head BEFORE INSERT ON events
WHEN NEW.position IS NOT (SELECT position + 1 FROM head)
BEGIN
    SELECT RAISE(ABORT, 'the position does not follow the head');
END;

CREATE TRIGGER events_follow_their_stream BEFORE INSERT ON events
WHEN NEW.version IS NOT
    (SELECT coalesce(max(version), 0) + 1 FROM events WHERE stream = NEW.stream)
BEGIN
    SELECT RAISE(ABORT, 'the version does not follow the stream');
END;

CREATE TRIGGER events_move_the_head AFTER INSERT ON events
BEGIN
    UPDATE head SET position = NEW.position, hash = NEW.hash;
END;

CREATE TRIGGER events_are_not_changed BEFORE UPDATE ON events
BEGIN
    SELECT RAISE(ABORT, 'events are never changed');
END;

CREATE TRIGGER events_are_not_deleted BEFORE DELETE ON events
BEGIN
    SELECT RAISE(ABORT, 'events are never deleted');
END;

CREATE TRIGGER head_goes_by_one BEFORE UPDATE ON head
WHEN NEW.id IS NOT 1 OR NEW.position IS NOT OLD.position + 1
BEGIN
    SELECT RAISE(ABORT, 'the head goes on by one event at a time');
END;

CREATE TRIGGER head_is_not_deleted BEFORE DELETE ON head
BEGIN
    SELECT RAISE(ABORT, 'the head is never deleted');
END;

PRAGMA user_version = 1;
