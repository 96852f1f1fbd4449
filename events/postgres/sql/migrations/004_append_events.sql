-- Appends by several instances, faster. The functions of 003 stay: imports use
-- append_group, and instances of the version before may still be running.

-- Each event must follow the one with the version before, at an earlier position. One
-- look at the index for each event takes less time than to number the events of each
-- stream. It is a scalar subquery for the reason that 003 gives.
CREATE OR REPLACE FUNCTION events_follow_the_head() RETURNS trigger
LANGUAGE plpgsql SET search_path FROM CURRENT
SET enable_seqscan = off
SET plan_cache_mode = force_generic_plan
AS $$
DECLARE
    before head%ROWTYPE;
    number bigint;
    first bigint;
    last bigint;
    has_gap boolean;
BEGIN
    SELECT * INTO STRICT before FROM head FOR UPDATE;
    SELECT
        count(*), min(position), max(position),
        bool_or(
            version <> 1 AND coalesce(
                (
                    SELECT earlier.position FROM events AS earlier
                    WHERE earlier.stream = added.stream
                    AND earlier.version = added.version - 1
                ),
                position
            ) >= position
        )
    INTO number, first, last, has_gap
    FROM added;
    IF number = 0 THEN
        RETURN NULL;
    END IF;
    IF first <> before.position + 1 OR last <> before.position + number THEN
        RAISE check_violation USING MESSAGE = 'the positions do not follow the head';
    END IF;
    IF has_gap THEN
        RAISE check_violation USING MESSAGE = 'the versions do not follow the stream';
    END IF;
    UPDATE head SET
        position = last,
        hash = (SELECT added.hash FROM added WHERE added.position = last);
    PERFORM pg_notify('herdbook ' || TG_TABLE_SCHEMA, last::text);
    RETURN NULL;
END $$;

-- Write a group of events after the head, if the instances hold the leases under which
-- they append. The head is locked first; see append_group_under.
--
-- Each column of the events is one text with a line per event, which is read several
-- times faster than JSON. No column has line breaks: names are printable, and the data
-- are JSON. An empty line is a null.
--
-- Without the pieces of the events (their hashed text before and after their position),
-- they are written with their hashes if the head has the hash that the plan started
-- from. With the pieces, they are chained to any head, and written if their versions are
-- free. Otherwise return the head and the versions of the streams, to plan again.
--
-- With the pieces, the answer also has the events between the position that the caller
-- knows and the group, if they are not too many: a line for each.
CREATE FUNCTION append_events(
    previous text,
    group_streams text,
    event_streams text,
    event_versions bigint[],
    event_ids text,
    event_types text,
    event_schemas integer[],
    event_data text,
    times text,
    recorded_at text,
    actors text,
    causes text,
    correlations text,
    causations text,
    event_hashes text,
    pieces_before text,
    pieces_after text,
    leases text[],
    holders text[],
    known bigint,
    OUT is_written boolean,
    OUT head_position bigint,
    OUT head_hash text,
    OUT versions bigint[],
    OUT hashes text,
    OUT missed text,
    OUT lost text[]
)
LANGUAGE plpgsql SET search_path FROM CURRENT
SET enable_seqscan = off
SET plan_cache_mode = force_generic_plan
AS $$
DECLARE
    line CONSTANT text := E'\n';
    start bigint;
    number integer;
    streams text[] := string_to_array(event_streams, line);
    ids text[] := string_to_array(event_ids, line);
    types text[] := string_to_array(event_types, line);
    data text[] := string_to_array(event_data, line);
    occurred text[] := string_to_array(times, line);
    by_whom text[] := string_to_array(actors, line);
    reasons text[] := string_to_array(causes, line);
    operations text[] := string_to_array(correlations, line, '');
    origins text[] := string_to_array(causations, line, '');
    chain text[] := string_to_array(event_hashes, line);
    prefixes text[] := string_to_array(pieces_before, line);
    suffixes text[] := string_to_array(pieces_after, line);
BEGIN
    SELECT head.position, head.hash INTO STRICT head_position, head_hash
    FROM head FOR UPDATE;
    start := head_position;
    number := cardinality(streams);
    IF leases IS NOT NULL THEN
        SELECT array_agg(lease) INTO lost
        FROM unnest(leases, holders) AS held (lease, holder)
        WHERE NOT lease_is_held(lease, holder);
    END IF;
    is_written := lost IS NULL AND CASE
        WHEN prefixes IS NULL THEN head_hash = previous
        ELSE NOT EXISTS (
            SELECT FROM generate_series(1, number) AS nth
            WHERE (
                SELECT events.position FROM events
                WHERE events.stream = streams[nth] AND events.version = event_versions[nth]
            ) IS NOT NULL
        )
    END;
    IF NOT is_written THEN
        versions := stream_versions(string_to_array(group_streams, line));
        RETURN;
    END IF;
    IF prefixes IS NOT NULL THEN
        chain := '{}';
        FOR nth IN 1 .. number LOOP
            head_hash := encode(
                sha256(
                    convert_to(
                        head_hash || prefixes[nth] || (start + nth) || suffixes[nth], 'UTF8'
                    )
                ),
                'hex'
            );
            chain := chain || head_hash;
        END LOOP;
        hashes := array_to_string(chain, line);
        IF start - known BETWEEN 1 AND 1000 THEN
            SELECT
                string_agg(
                    concat_ws(
                        E'\x1f',
                        position, stream, version, event_id, type, schema, event.data,
                        occurred_at, event.recorded_at, actor, cause,
                        coalesce(correlation_id, ''), coalesce(causation_id, ''), hash
                    ),
                    line
                ) INTO missed
            FROM (
                SELECT * FROM events
                WHERE position > known AND position <= start
                ORDER BY position
            ) AS event;
        END IF;
    END IF;
    head_position := start + number;
    INSERT INTO events
    SELECT
        start + nth, streams[nth], event_versions[nth], ids[nth], types[nth],
        event_schemas[nth], data[nth], occurred[nth], recorded_at, by_whom[nth],
        reasons[nth], operations[nth], origins[nth], chain[nth]
    FROM generate_series(1, number) AS nth;
END $$;
