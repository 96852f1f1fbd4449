-- A checksum for each snapshot: an altered one must not be believed. Snapshots from
-- before have none, and are not used.

ALTER TABLE views ADD COLUMN checksum TEXT;

PRAGMA user_version = 3;
