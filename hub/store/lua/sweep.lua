-- Park the sessions of nodes whose lease is over, a batch a call. They keep their owners: a node that was only
-- stopped for a while goes on with them, until another connection takes them.
--
-- KEYS  1 clock
-- ARGV  1 sessions at most
-- Answer: how many sessions were parked; as many as asked for: there may be more

local parked = 0
for _, node in ipairs(redis.call('SMEMBERS', base .. 'nodes')) do
  if redis.call('EXISTS', base .. 'node:' .. node) == 0 then
    local clients = redis.call('SPOP', served_key(node), tonumber(ARGV[1]) - parked)
    for _, client in ipairs(clients) do
      local session = load(client)
      if session and session.owner and string.match(session.owner, '^[^/]*') == node then
        park(session, true)
      end
    end
    parked = parked + #clients
    if parked >= tonumber(ARGV[1]) then return parked end
    redis.call('SREM', base .. 'nodes', node)
  end
end
return parked
