-- What every function of a lane shares. A lane's keys carry one hash tag and come in one order:
--   ready   zset    run id → score: most urgent first, then oldest `run_at` (milliseconds), then id
--   seq     hash    run id → "seq:score:message"; stands from the push until the entry is settled
--   stream  stream  entries that are offered to workers (field `m`: the message, opaque here)
--   credit  hash    worker → "free expiry": free slots, good until `expiry` (server's milliseconds)
--   open    string  stands while the API may push new runs by itself
-- An entry is always acked and deleted together, so the stream holds undelivered and pending entries only.

local GROUP = 'workers'
local SUM = '=' -- field of `credit` beside the workers: "sum expiry", good until the first part of it expires
local BAND = 2 ^ 49 -- width of one priority's range of scores
local BATCH = 500 -- entries per command: far below what Lua's stack can unpack

local function lane_of(keys)
  return { ready = keys[1], seq = keys[2], stream = keys[3], credit = keys[4], open = keys[5] }
end

local function now_ms()
  local time = redis.call('TIME')
  return time[1] * 1000 + math.floor(time[2] / 1000)
end

-- The group's attributes; a missing stream or group is created, at 0, so that nothing already offered is passed over.
local function group_of(lane)
  local groups = redis.pcall('XINFO', 'GROUPS', lane.stream)
  if not groups.err then
    for _, flat in ipairs(groups) do
      local group = {}
      for i = 1, #flat, 2 do
        group[flat[i]] = flat[i + 1]
      end
      if group.name == GROUP then
        return group
      end
    end
  end
  redis.call('XGROUP', 'CREATE', lane.stream, GROUP, '0', 'MKSTREAM')
  return { name = GROUP, consumers = 0, pending = 0, ['last-delivered-id'] = '0-0' }
end

local function pair_of(text)
  local first, second = string.match(text or '', '^(%d+) (%d+)$')
  return tonumber(first), tonumber(second)
end

-- Sum of the free slots of live workers, and when the first of them expires (never: there is none). Forgets those that
-- have expired.
local function count_credit(lane)
  local now, total, earliest, expired = now_ms(), 0, math.huge, {}
  local offers = redis.call('HGETALL', lane.credit)
  for i = 1, #offers, 2 do
    local free, expiry = pair_of(offers[i + 1])
    if free and expiry > now then
      if offers[i] ~= SUM then
        total, earliest = total + free, math.min(earliest, expiry)
      end
    elseif #expired < BATCH then
      expired[#expired + 1] = offers[i]
    end
  end
  if #expired > 0 then
    redis.call('HDEL', lane.credit, unpack(expired))
  end
  return total, earliest
end

-- The sum alone. It is kept, and counted anew only when a part of it has expired: its cost does not grow with the fleet.
local function credit_of(lane)
  local total, valid = pair_of(redis.call('HGET', lane.credit, SUM))
  if total and valid > now_ms() then
    return total
  end
  local counted, earliest = count_credit(lane)
  if earliest < math.huge then
    redis.call('HSET', lane.credit, SUM, string.format('%d %.0f', counted, earliest))
  end
  return counted
end

-- Moves the most urgent ready runs into the stream while fewer are undelivered than workers have free slots.
local function pump(lane)
  local pending = group_of(lane).pending
  if redis.call('ZCARD', lane.ready) == 0 then
    return
  end
  local room = credit_of(lane) - (redis.call('XLEN', lane.stream) - pending)
  while room > 0 do
    local popped = redis.call('ZPOPMIN', lane.ready, math.min(room, BATCH))
    if #popped == 0 then
      return
    end
    local ids = {}
    for i = 1, #popped, 2 do
      ids[#ids + 1] = popped[i]
    end
    for _, value in ipairs(redis.call('HMGET', lane.seq, unpack(ids))) do
      if value then -- else settled meanwhile: somebody has it
        redis.call('XADD', lane.stream, '*', 'm', string.match(value, '^%d+:%d+:(.*)$'))
        room = room - 1
      end
    end
  end
end

local function set_credit(lane, worker, free, ttl_ms)
  local now = now_ms()
  local expiry = now + ttl_ms
  local total, valid = pair_of(redis.call('HGET', lane.credit, SUM))
  if total and valid > now then
    local last, lasted = pair_of(redis.call('HGET', lane.credit, worker))
    total = total + free - ((last and lasted > now) and last or 0)
    valid = free > 0 and math.min(valid, expiry) or valid
    redis.call('HSET', lane.credit, SUM, string.format('%d %.0f', total, valid))
  end
  if free > 0 then
    redis.call('HSET', lane.credit, worker, string.format('%d %.0f', free, expiry))
    redis.call('PEXPIRE', lane.credit, 60000) -- a lane without workers keeps nothing
  else
    redis.call('HDEL', lane.credit, worker)
  end
end

-- Acks and deletes entries, given as `{entry_id, run_id, seq}`, and forgets each run's seq unless a newer one has come.
-- Returns the runs that were current, as `{run_id, score}`.
local function drop(lane, entries)
  local current = {}
  for first = 1, #entries, BATCH do
    local entry_ids, run_ids, stale = {}, {}, {}
    for i = first, math.min(first + BATCH - 1, #entries) do
      entry_ids[#entry_ids + 1] = entries[i][1]
      run_ids[#run_ids + 1] = entries[i][2]
    end
    redis.pcall('XACK', lane.stream, GROUP, unpack(entry_ids))
    redis.call('XDEL', lane.stream, unpack(entry_ids))
    for i, value in ipairs(redis.call('HMGET', lane.seq, unpack(run_ids))) do
      local seq, score = string.match(value or '', '^(%d+):(%d+):')
      if seq and tonumber(seq) == entries[first + i - 1][3] then
        stale[#stale + 1] = run_ids[i]
        current[#current + 1] = { run_ids[i], score, value }
      end
    end
    if #stale > 0 then
      redis.call('HDEL', lane.seq, unpack(stale))
    end
  end
  return current
end

-- The same for entry ids alone: run and seq are read from the message, as far as there is one.
local function drop_ids(lane, entry_ids)
  local entries = {}
  for i, id in ipairs(entry_ids) do
    local found = redis.call('XRANGE', lane.stream, id, id)[1]
    local fields = found and found[2] or {}
    local ok, message = pcall(cmsgpack.unpack, fields[1] == 'm' and fields[2] or '')
    local known = ok and type(message) == 'table' and type(message[2]) == 'string'
    entries[i] = { id, known and message[2] or '', known and tonumber(message[3]) or -1 }
  end
  drop(lane, entries)
end

-- Registers a function under the library's own name, so that two releases can live side by side. With `allow-oom` it
-- also runs when memory is full: everything but `push` frees memory, or needs next to none.
local function register(name, flags, callback)
  redis.register_function({ function_name = '@LIBRARY@_' .. name, callback = callback, flags = flags })
end
