-- Snapshots of views: a cache that may be replaced or deleted.

CREATE TABLE views (
    name TEXT PRIMARY KEY,
    version INTEGER NOT NULL,
    position INTEGER NOT NULL,
    hash TEXT NOT NULL,
    data BLOB NOT NULL
) STRICT;

PRAGMA user_version = 2;
