-- A checksum for each snapshot, to detect changed snapshots. Older snapshots have
-- none and are ignored.

ALTER TABLE views ADD COLUMN checksum TEXT;

PRAGMA user_version = 3;
