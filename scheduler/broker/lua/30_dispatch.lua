-- offer(worker, free, ttl_ms): the worker's free slots as they are now; then whatever they make room for is offered.
register('offer', { 'allow-oom' }, function(keys, args)
  local lane = lane_of(keys)
  set_credit(lane, args[1], tonumber(args[2]), tonumber(args[3]))
  pump(lane)
end)

-- settle(entries): msgpack [[entry_id, run_id, seq]…], done with.
register('settle', { 'allow-oom' }, function(keys, args)
  drop(lane_of(keys), cmsgpack.unpack(args[1]))
end)

-- give_back(entries, worker): the worker had no slot for these; they are ready again, each at its old place.
register('give_back', { 'allow-oom' }, function(keys, args)
  local lane = lane_of(keys)
  local members, values = {}, {}
  for _, run in ipairs(drop(lane, cmsgpack.unpack(args[1]))) do
    members[#members + 1], members[#members + 2] = run[2], run[1]
    values[#values + 1], values[#values + 2] = run[1], run[3]
  end
  for first = 1, #members, 2 * BATCH do
    local last = math.min(first + 2 * BATCH - 1, #members)
    redis.call('HSET', lane.seq, unpack(values, first, last))
    redis.call('ZADD', lane.ready, unpack(members, first, last))
  end
  set_credit(lane, args[2], 0, 0)
  pump(lane)
end)

-- reclaim(idle_ms) → number of entries dropped. Delivered entries that nobody has settled for so long, entries that are
-- neither pending nor undelivered (their consumer was deleted by hand), and consumers of workers long gone.
register('reclaim', { 'allow-oom' }, function(keys, args)
  local lane = lane_of(keys)
  local group = group_of(lane)
  local ids = {}
  for _, entry in ipairs(redis.call('XPENDING', lane.stream, GROUP, 'IDLE', args[1], '-', '+', BATCH)) do
    ids[#ids + 1] = entry[1]
  end
  for _, entry in ipairs(redis.call('XRANGE', lane.stream, '-', group['last-delivered-id'], 'COUNT', 100)) do
    if #redis.call('XPENDING', lane.stream, GROUP, entry[1], entry[1], 1) == 0 then
      ids[#ids + 1] = entry[1]
    end
  end
  drop_ids(lane, ids)
  for _, flat in ipairs(redis.call('XINFO', 'CONSUMERS', lane.stream, GROUP)) do
    local consumer = {}
    for i = 1, #flat, 2 do
      consumer[flat[i]] = flat[i + 1]
    end
    if consumer.pending == 0 and consumer.idle > 600000 then
      redis.call('XGROUP', 'DELCONSUMER', lane.stream, GROUP, consumer.name)
    end
  end
  pump(lane)
  return #ids
end)

-- forget_worker(worker) → number of entries dropped. A dead worker's credit, deliveries and consumer, in this order: a
-- consumer deleted with pending entries would leave them in the stream, neither pending nor undelivered.
register('forget_worker', { 'allow-oom' }, function(keys, args)
  local lane, dropped = lane_of(keys), 0
  group_of(lane)
  set_credit(lane, args[1], 0, 0)
  repeat
    local ids = {}
    for _, entry in ipairs(redis.call('XPENDING', lane.stream, GROUP, '-', '+', BATCH, args[1])) do
      ids[#ids + 1] = entry[1]
    end
    drop_ids(lane, ids)
    dropped = dropped + #ids
  until #ids == 0
  redis.call('XGROUP', 'DELCONSUMER', lane.stream, GROUP, args[1])
  pump(lane)
  return dropped
end)
