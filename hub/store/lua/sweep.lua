-- Park the next sessions of nodes whose lease is over. Their owners stay: a node that was only stopped for a while
-- continues to serve them, until another connection claims them.
--
-- KEYS  1 clock
-- ARGV  1 sessions at most   2 rooms of theirs, after which no further session is looked at
-- Answer: how many sessions were looked at; 0: none is left

local sessions, rooms = 0, 0
for _, node in ipairs(redis.call('SMEMBERS', base .. 'nodes')) do
  if redis.call('EXISTS', base .. 'node:' .. node) == 0 then
    local client = redis.call('SPOP', served_key(node))
    while client do
      local session = load_session(client)
      if session and session.owner and node_of(session.owner) == node then
        park(session, true)  -- rule: swept_owner
        for _ in pairs(session.rooms) do rooms = rooms + 1 end
      end
      sessions = sessions + 1
      if sessions >= tonumber(ARGV[1]) or rooms >= tonumber(ARGV[2]) then return sessions end
      client = redis.call('SPOP', served_key(node))
    end
    redis.call('SREM', base .. 'nodes', node)
  end
end
return sessions
