-- What every connection is set to; the time to wait for a lock is set before.

-- Readers do not wait for the writer, nor it for them.
PRAGMA journal_mode = WAL;
-- What is acknowledged outlives a power cut; NORMAL would lose the latest.
PRAGMA synchronous = FULL;
-- Else INSERT OR REPLACE deletes rows past the triggers that refuse it.
PRAGMA recursive_triggers = ON;
-- Nothing in the file's own schema calls what it should not.
PRAGMA trusted_schema = OFF;
-- A damaged page is an error, not a wrong answer.
PRAGMA cell_size_check = ON;
-- A mapped file turns an I/O error into the death of the process.
PRAGMA mmap_size = 0;
