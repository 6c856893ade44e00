-- renew(holder, ttl_ms) → 1 while the lock is still the holder's.
register('renew', { 'allow-oom' }, function(keys, args)
  if redis.call('GET', keys[1]) ~= args[1] then
    return 0
  end
  return redis.call('PEXPIRE', keys[1], args[2])
end)

-- release(holder) → 1 if the lock was the holder's and is free now.
register('release', { 'allow-oom' }, function(keys, args)
  if redis.call('GET', keys[1]) ~= args[1] then
    return 0
  end
  return redis.call('DEL', keys[1])
end)

-- heartbeat(worker, ttl_ms): a sorted set by expiry in the server's time, which those leave who are no more.
register('heartbeat', { 'allow-oom' }, function(keys, args)
  redis.call('ZREMRANGEBYSCORE', keys[1], '-inf', string.format('%.0f', now_ms()))
  redis.call('ZADD', keys[1], string.format('%.0f', now_ms() + tonumber(args[2])), args[1])
end)

-- live_workers() → those whose heartbeat has not expired.
register('live_workers', { 'allow-oom' }, function(keys)
  redis.call('ZREMRANGEBYSCORE', keys[1], '-inf', string.format('%.0f', now_ms()))
  return redis.call('ZRANGE', keys[1], 0, -1)
end)

-- mark(installation, token) → the marker that stands. It is set when it is missing (everything was wiped) or another
-- installation's (the database was restored), and so tells an old dataset from a new one.
register('mark', { 'allow-oom' }, function(keys, args)
  local marker = redis.call('GET', keys[1])
  if marker and string.sub(marker, 1, #args[1] + 1) == args[1] .. ':' then
    return marker
  end
  redis.call('SET', keys[1], args[1] .. ':' .. args[2])
  return args[1] .. ':' .. args[2]
end)
