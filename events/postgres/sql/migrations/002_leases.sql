-- Appends under a lease, and where each instance runs.

ALTER TABLE instances ADD COLUMN host text NOT NULL DEFAULT '';
ALTER TABLE instances ADD COLUMN process bigint;

-- Whether the session of an instance has a lease now. The view of the locks is not part
-- of the snapshot of a transaction.
CREATE FUNCTION lease_is_held(lease text, holder text) RETURNS boolean
LANGUAGE sql VOLATILE SET search_path FROM CURRENT AS $$
    SELECT EXISTS (
        SELECT FROM pg_locks AS lock
        INNER JOIN pg_locks AS presence ON lock.pid = presence.pid
        WHERE
            lock.locktype = 'advisory'
            AND lock.granted
            AND lock.database = (
                SELECT oid FROM pg_database WHERE datname = current_database()
            )
            AND lock.objsubid = 1
            AND (lock.classid::bigint << 32 | lock.objid::bigint)
            = hashtextextended('herdbook lease ' || current_schema() || ' ' || lease, 0)
            AND presence.locktype = 'advisory'
            AND presence.granted
            AND presence.database = lock.database
            AND presence.objsubid = 1
            AND (presence.classid::bigint << 32 | presence.objid::bigint)
            = hashtextextended('herdbook instance ' || holder, 0)
    )
$$;

-- Write a group like append_group, unless an instance does not hold the lease under
-- which it appends; then return those leases.
--
-- The head is locked first. Whoever takes a lease appends after that lock is free, so
-- no event that was appended under a lease follows those of its next holder.
CREATE FUNCTION append_group_under(
    previous text,
    group_rows json,
    group_streams text[],
    planned_versions bigint[],
    group_pieces json,
    group_leases text[],
    group_holders text[]
)
RETURNS TABLE (
    is_written boolean,
    head_position bigint,
    head_hash text,
    versions bigint[],
    hashes text[],
    lost text[]
)
LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
BEGIN
    SELECT head.position, head.hash INTO STRICT head_position, head_hash
    FROM head FOR UPDATE;
    SELECT array_agg(lease) INTO lost
    FROM unnest(group_leases, group_holders) AS held (lease, holder)
    WHERE NOT lease_is_held(lease, holder);
    IF lost IS NOT NULL THEN
        is_written := false;
        versions := stream_versions(group_streams);
        RETURN NEXT;
        RETURN;
    END IF;
    RETURN QUERY
    SELECT written.*, NULL::text[]
    FROM append_group(
        previous, group_rows, group_streams, planned_versions, group_pieces
    ) AS written;
END $$;
