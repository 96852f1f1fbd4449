-- The log: immutable events, and the head row that enforces their order. Every
-- insert locks the head row until its commit, so positions are committed in order.

CREATE TABLE herdbook_log (
    id integer PRIMARY KEY CHECK (id = 1),
    schema_version integer NOT NULL
);

INSERT INTO herdbook_log (id, schema_version) VALUES (1, 0);

CREATE TABLE events (
    position bigint PRIMARY KEY CHECK (position > 0),
    stream text COLLATE "C" NOT NULL CHECK (length(stream) <= 1000),
    version bigint NOT NULL CHECK (version > 0),
    event_id text COLLATE "C" NOT NULL UNIQUE CHECK (length(event_id) <= 64),
    type text COLLATE "C" NOT NULL CHECK (length(type) <= 100),
    schema integer NOT NULL,
    data text COLLATE "C" NOT NULL CHECK (length(data) <= 1048576),
    occurred_at text COLLATE "C" NOT NULL CHECK (length(occurred_at) <= 40),
    recorded_at text COLLATE "C" NOT NULL CHECK (length(recorded_at) <= 40),
    actor text COLLATE "C" NOT NULL CHECK (length(actor) <= 200),
    cause text COLLATE "C" NOT NULL CHECK (length(cause) <= 40),
    correlation_id text COLLATE "C" CHECK (length(correlation_id) <= 64),
    causation_id text COLLATE "C" CHECK (length(causation_id) <= 64),
    hash text COLLATE "C" NOT NULL CHECK (length(hash) = 64),
    UNIQUE (stream, version)
);

CREATE TABLE head (
    id integer PRIMARY KEY CHECK (id = 1),
    position bigint NOT NULL,
    hash text COLLATE "C" NOT NULL
) WITH (fillfactor = 10);

INSERT INTO head (id, position, hash) VALUES (1, 0, repeat('0', 64));

CREATE FUNCTION events_follow_the_head() RETURNS trigger
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
        OR numbered.nth = 1 AND numbered.version <> 1 AND NOT EXISTS (
            SELECT FROM events
            WHERE events.stream = numbered.stream AND events.version = numbered.version - 1
        )
    ) THEN
        RAISE check_violation USING MESSAGE = 'the versions do not follow the stream';
    END IF;
    UPDATE head SET
        position = last,
        hash = (SELECT added.hash FROM added WHERE added.position = last);
    PERFORM pg_notify('herdbook ' || TG_TABLE_SCHEMA, last::text);
    RETURN NULL;
END $$;

CREATE TRIGGER events_follow_the_head AFTER INSERT ON events
REFERENCING NEW TABLE AS added
FOR EACH STATEMENT EXECUTE FUNCTION events_follow_the_head();

CREATE FUNCTION refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE check_violation USING MESSAGE = TG_TABLE_NAME || ' cannot be changed';
END $$;

CREATE TRIGGER events_are_not_changed BEFORE UPDATE OR DELETE OR TRUNCATE ON events
FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();

CREATE TRIGGER head_is_not_deleted BEFORE INSERT OR DELETE OR TRUNCATE ON head
FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();

CREATE FUNCTION head_is_an_event() RETURNS trigger
LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
BEGIN
    IF NEW.id <> 1 OR NEW.position <= OLD.position OR NOT EXISTS (
        SELECT FROM events WHERE position = NEW.position AND hash = NEW.hash
    ) THEN
        RAISE check_violation USING MESSAGE = 'the head moves to a newer event only';
    END IF;
    RETURN NEW;
END $$;

CREATE TRIGGER head_is_an_event BEFORE UPDATE ON head
FOR EACH ROW EXECUTE FUNCTION head_is_an_event();

-- Write a group of events if the head has the hash that the plan started from.
--
-- If it has not, but the streams still have the versions of the plan, and the group
-- comes with its pieces (the hashed text of each event before and after its position),
-- the events get the next positions, are chained to the head, and are written.
-- Otherwise return the head and the versions of the streams, to plan again.
CREATE FUNCTION append_group(
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
    piece json;
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
        FOR piece IN SELECT value FROM json_array_elements(group_pieces) LOOP
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
    FROM json_array_elements(group_rows) WITH ORDINALITY AS row (value, nth);
    RETURN NEXT;
END $$;

-- The versions of some streams, in their order.
CREATE FUNCTION stream_versions(streams text[]) RETURNS bigint[]
LANGUAGE sql VOLATILE SET search_path FROM CURRENT AS $$
    SELECT array_agg(
        coalesce(
            (SELECT max(version) FROM events WHERE events.stream = wanted.stream), 0
        )
        ORDER BY nth
    )
    FROM unnest(streams) WITH ORDINALITY AS wanted (stream, nth)
$$;

-- Snapshots of views: a cache that may be replaced or deleted.
CREATE TABLE views (
    name text PRIMARY KEY,
    version bigint NOT NULL,
    position bigint NOT NULL,
    hash text NOT NULL,
    data bytea NOT NULL,
    checksum text NOT NULL
);

-- Snapshots of views at many positions, so that the past needs no long replay.
CREATE TABLE kept_views (
    name text NOT NULL,
    version bigint NOT NULL,
    position bigint NOT NULL,
    hash text NOT NULL,
    data bytea NOT NULL,
    checksum text NOT NULL,
    PRIMARY KEY (name, position, version)
);

-- The running instances. One is alive while its session holds the lock of its id.
CREATE TABLE instances (
    id text PRIMARY KEY,
    streams text[] NOT NULL DEFAULT '{}',
    seen_at timestamptz NOT NULL DEFAULT clock_timestamp()
);
