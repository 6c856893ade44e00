-- push(rows, window, last, message…) → is open   rows: msgpack [[run_id, seq, score]…]
-- Adds runs that are absent, or known with an older seq only. A priority never holds more than `window` ready runs: what
-- does not fit is left out, and the lane's `open` flag goes. `last` is '0' when more rows follow at once, so that a late
-- urgent run still leaves first.
register('push', {}, function(keys, args)
  local lane, rows, window = lane_of(keys), cmsgpack.unpack(args[1]), tonumber(args[2])
  local ids = {}
  for i, row in ipairs(rows) do
    ids[i] = row[1]
  end
  local known = redis.call('HMGET', lane.seq, unpack(ids))
  local newest, counts, members, values = {}, {}, {}, {}
  for i, row in ipairs(rows) do
    local id, seq, score = row[1], row[2], row[3]
    local last = newest[id] or tonumber(string.match(known[i] or '', '^%d+') or '')
    if not last or seq > last then
      local band = math.floor(score / BAND)
      local low, high = string.format('%.0f', band * BAND), string.format('(%.0f', (band + 1) * BAND)
      local count = counts[band] or redis.call('ZCOUNT', lane.ready, low, high)
      if count < window then
        local text = string.format('%.0f', score)
        members[#members + 1], members[#members + 2] = text, id
        values[#values + 1] = id
        values[#values + 1] = string.format('%.0f:%s:', seq, text) .. args[3 + i]
        newest[id], count = seq, count + 1
      end
      counts[band] = count
    end
  end
  if #members > 0 then
    redis.call('HSET', lane.seq, unpack(values))
    redis.call('ZADD', lane.ready, unpack(members))
  end
  for _, count in pairs(counts) do
    if count >= window then
      redis.call('DEL', lane.open)
    end
  end
  if args[3] ~= '0' then
    pump(lane)
  end
  return redis.call('EXISTS', lane.open)
end)

-- clear() forgets everything of the lane but its credit: the first step of rebuilding it from PostgreSQL.
register('clear', { 'allow-oom' }, function(keys)
  local lane = lane_of(keys)
  redis.call('DEL', lane.ready, lane.seq, lane.stream, lane.open)
  group_of(lane)
end)

-- stats() → {is open, ready at priority 0 … 9}
register('stats', { 'allow-oom' }, function(keys)
  local lane = lane_of(keys)
  local answer = { redis.call('EXISTS', lane.open) }
  for priority = 0, 9 do
    local band = 9 - priority
    local low, high = string.format('%.0f', band * BAND), string.format('(%.0f', (band + 1) * BAND)
    answer[#answer + 1] = redis.call('ZCOUNT', lane.ready, low, high)
  end
  return answer
end)
