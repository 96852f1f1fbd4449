-- Snapshots of views at many positions, so that the past needs no long replay: a
-- cache that may be deleted.

CREATE TABLE kept_views (
    name TEXT NOT NULL,
    version INTEGER NOT NULL,
    position INTEGER NOT NULL,
    hash TEXT NOT NULL,
    size INTEGER NOT NULL,
    checksum TEXT NOT NULL,
    data BLOB NOT NULL,
    PRIMARY KEY (name, position, version)
) STRICT;

PRAGMA user_version = 4;
