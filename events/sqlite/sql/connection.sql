-- Settings of every connection, except the lock timeout, which is set on connecting.

-- Readers and the writer do not block each other.
PRAGMA journal_mode = WAL;
-- Acknowledged commits survive a power cut; NORMAL would lose the latest ones.
PRAGMA synchronous = FULL;
-- Otherwise INSERT OR REPLACE deletes rows without running the triggers.
PRAGMA recursive_triggers = ON;
-- The schema in the file must not call unsafe functions.
PRAGMA trusted_schema = OFF;
-- A damaged page is an error, not a wrong result.
PRAGMA cell_size_check = ON;
-- With a mapped file, an I/O error would kill the process.
PRAGMA mmap_size = 0;
