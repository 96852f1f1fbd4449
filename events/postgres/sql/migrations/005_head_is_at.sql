-- Whether the head is at the last event of a group that was just written; an error if it
-- is not. Without the triggers, which move the head, the events would be recorded, but no
-- reader would find them, and no other event could follow.
CREATE FUNCTION head_is_at(wanted bigint) RETURNS boolean
LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
BEGIN
    IF NOT EXISTS (SELECT FROM head WHERE position = wanted) THEN
        RAISE check_violation
        USING MESSAGE = 'the triggers of the log are missing or disabled';
    END IF;
    RETURN true;
END $$;
