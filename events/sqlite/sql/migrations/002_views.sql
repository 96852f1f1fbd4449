-- Snapshots of views: a cache, so they may be replaced and lost.

CREATE TABLE views (
    name TEXT PRIMARY KEY,
    version INTEGER NOT NULL,
    position INTEGER NOT NULL,
    hash TEXT NOT NULL,
    data BLOB NOT NULL
) STRICT;

PRAGMA user_version = 2;
