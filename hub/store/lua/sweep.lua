-- Park the sessions of nodes whose lease is over, a batch a call. They keep their owners: a node that was only
-- stopped for a while goes on with them, until another connection takes them.
--
-- KEYS  1 clock
-- ARGV  1 sessions at most   2 rooms of theirs, beyond which no further session is looked at
-- Answer: how many sessions were looked at; 0: there are no more

local seen, rooms = 0, 0
for _, node in ipairs(redis.call('SMEMBERS', base .. 'nodes')) do
  if redis.call('EXISTS', base .. 'node:' .. node) == 0 then
    local client = redis.call('SPOP', served_key(node))
    while client do
      local session = load(client)
      if session and session.owner and string.match(session.owner, '^[^/]*') == node then
        park(session, true)  -- rule: swept_owner
        for _ in pairs(session.rooms) do rooms = rooms + 1 end
      end
      seen = seen + 1
      if seen >= tonumber(ARGV[1]) or rooms >= tonumber(ARGV[2]) then return seen end
      client = redis.call('SPOP', served_key(node))
    end
    redis.call('SREM', base .. 'nodes', node)
  end
end
return seen
