-- The same functions as in 001, faster.

-- The version before the first new one of a stream is a scalar subquery: for an EXISTS,
-- PostgreSQL may read the whole table into a hash table, in each append.
CREATE OR REPLACE FUNCTION events_follow_the_head() RETURNS trigger
LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
DECLARE
    before head%ROWTYPE;
    number bigint;
    first bigint;
    last bigint;
BEGIN
    SELECT * INTO STRICT before FROM head FOR UPDATE;
    SELECT count(*), min(position), max(position) INTO number, first, last FROM added;
    IF number = 0 THEN
        RETURN NULL;
    END IF;
    IF first <> before.position + 1 OR last <> before.position + number THEN
        RAISE check_violation USING MESSAGE = 'the positions do not follow the head';
    END IF;
    IF EXISTS (
        SELECT FROM (
            SELECT
                stream,
                version,
                min(version) OVER (PARTITION BY stream) AS lowest,
                row_number() OVER (PARTITION BY stream ORDER BY position) AS nth
            FROM added
        ) AS numbered
        WHERE numbered.version <> numbered.lowest + numbered.nth - 1
        OR numbered.nth = 1 AND numbered.version <> 1 AND (
            SELECT events.version FROM events
            WHERE events.stream = numbered.stream AND events.version = numbered.version - 1
        ) IS NULL
    ) THEN
        RAISE check_violation USING MESSAGE = 'the versions do not follow the stream';
    END IF;
    UPDATE head SET
        position = last,
        hash = (SELECT added.hash FROM added WHERE added.position = last);
    PERFORM pg_notify('herdbook ' || TG_TABLE_SCHEMA, last::text);
    RETURN NULL;
END $$;

-- The JSON is parsed once, into jsonb, and not again for each value. The values are
-- texts and integers, which jsonb keeps as they are.
CREATE OR REPLACE FUNCTION append_group(
    previous text,
    group_rows json,
    group_streams text[],
    planned_versions bigint[],
    group_pieces json
)
RETURNS TABLE (
    is_written boolean,
    head_position bigint,
    head_hash text,
    versions bigint[],
    hashes text[]
)
LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
DECLARE
    start bigint;
    chained text;
    piece jsonb;
BEGIN
    SELECT head.position, head.hash INTO STRICT head_position, head_hash
    FROM head FOR UPDATE;
    start := head_position;
    is_written := head_hash = previous;
    IF NOT is_written THEN
        versions := stream_versions(group_streams);
        IF group_pieces IS NULL OR versions IS DISTINCT FROM planned_versions THEN
            RETURN NEXT;
            RETURN;
        END IF;
        is_written := true;
        chained := head_hash;
        FOR piece IN SELECT value FROM jsonb_array_elements(group_pieces::jsonb) LOOP
            head_position := head_position + 1;
            chained := encode(
                sha256(
                    convert_to(
                        chained || (piece ->> 0) || head_position || (piece ->> 1),
                        'UTF8'
                    )
                ),
                'hex'
            );
            hashes := hashes || chained;
        END LOOP;
        head_hash := chained;
    END IF;
    INSERT INTO events
    SELECT
        CASE WHEN hashes IS NULL THEN (value ->> 0)::bigint ELSE start + nth END,
        value ->> 1, (value ->> 2)::bigint, value ->> 3,
        value ->> 4, (value ->> 5)::integer, value ->> 6, value ->> 7, value ->> 8,
        value ->> 9, value ->> 10, value ->> 11, value ->> 12,
        coalesce(hashes[nth], value ->> 13)
    FROM jsonb_array_elements(group_rows::jsonb) WITH ORDINALITY AS row (value, nth);
    RETURN NEXT;
END $$;
