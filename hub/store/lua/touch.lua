-- Keep the sessions that a node serves from expiring.
--
-- KEYS  1 clock
-- ARGV  1 node   then client id, owner; and so on
-- Answer: how many of them the owners still own

local known = 0
for i = 2, #ARGV, 2 do
  local session = owned(ARGV[i], ARGV[i + 1])
  if session then
    known = known + 1
    redis.call('PEXPIRE', session_key(session.client), text(kept(session)))  -- rule: lapse_replays/2, ttl_connected
    redis.call('SADD', served_key(ARGV[1]), session.client)
    outlive(served_key(ARGV[1]), kept(session))
    if session.away == '1' then
      redis.call('PEXPIRE', session.inbox, text(kept(session)))
      for room in pairs(session.rooms) do outlive(away_key(room), kept(session)) end
    end
  end
end
return known
