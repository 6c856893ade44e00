-- migrate:up

-- What the end of runs does to those that wait for them: `ended_runs` became `ended_states` in this very transaction, whose locks
-- on them are held. Returns dependents that became `queued` (those in one of `open_lanes`), `ready` (nothing blocks them, the
-- leader will queue them) or `skipped` (which in turn settles others).
--
-- This is a function because each statement in it sees what is committed when it begins. The statement that ends a run may have
-- waited for whoever was inserting an edge on it, and its own snapshot is older than that edge and than the run that waits.
CREATE FUNCTION dts_settle_dependents(ended_runs uuid[], ended_states text[], open_lanes text[])
RETURNS TABLE (kind text, run_id uuid, state text, lane text, priority smallint, run_at timestamptz, seq integer, traceparent text)
LANGUAGE plpgsql STRICT ROWS 10 AS $$
#variable_conflict use_column
BEGIN
  -- Most runs have nobody who waits for them, and looking costs less than setting out to change.
  IF NOT EXISTS (
    SELECT FROM unnest(ended_runs) AS ended(id)
    WHERE EXISTS (SELECT FROM run_dependencies d WHERE d.upstream_run_id = ended.id AND d.state = 'waiting')
  ) THEN
    RETURN;
  END IF;
  RETURN QUERY
  WITH flipped AS (
    UPDATE run_dependencies d
    SET state = CASE
          WHEN d.condition = 'completion' THEN 'met'
          WHEN d.condition = 'success' AND ended.state = 'completed' THEN 'met'
          WHEN d.condition = 'failure' AND ended.state IN ('failed', 'dead_letter') THEN 'met'
          ELSE 'impossible' END
    FROM unnest(ended_runs, ended_states) AS ended(run_id, state)
    WHERE d.upstream_run_id = ended.run_id AND d.state = 'waiting'
    RETURNING d.run_id, d.state
  ), counted AS (
    SELECT run_id, 'pending' AS was,
           count(*) FILTER (WHERE state = 'met')::integer AS met, bool_or(state = 'impossible') AS impossible
    FROM flipped GROUP BY run_id ORDER BY run_id
  ), freed AS (
    -- Conditions stand in SET and not in a join, so that a row changed meanwhile is judged as it is now.
    UPDATE runs r
    SET unmet        = r.unmet - c.met,
        state        = CASE WHEN c.impossible THEN 'skipped'
                            WHEN r.unmet = c.met AND NOT r.held AND r.gate IS NULL AND r.run_at <= dts_now()
                                 AND r.lane = ANY (open_lanes) THEN 'queued'
                            ELSE 'pending' END,
        reason       = CASE WHEN c.impossible THEN 'dependency_failed' ELSE r.reason END,
        finished_at  = CASE WHEN c.impossible THEN dts_now() END,
        queued_at    = CASE WHEN NOT c.impossible AND r.unmet = c.met THEN dts_now() END,
        dispatch_seq = r.dispatch_seq + 1,
        version      = r.version + 1
    FROM counted c
    WHERE r.id = c.run_id AND r.state = c.was
    RETURNING CASE r.state WHEN 'pending' THEN 'ready' ELSE r.state END AS kind, r.unmet,
              r.id AS run_id, r.state, r.lane, r.priority, r.run_at, r.dispatch_seq AS seq, r.traceparent
  )
  SELECT kind, run_id, state, lane, priority, run_at, seq, traceparent FROM freed WHERE kind <> 'ready' OR unmet = 0;
END
$$;

-- migrate:down
-- Forward only: restore a backup instead.
