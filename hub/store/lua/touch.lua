-- Keep the sessions that a node owns from expiring.
--
-- KEYS  1 clock
-- ARGV  1 node   then client id, owner; and so on for each session
-- Answer: how many of the owners own their sessions

local node, owned = ARGV[1], 0
for i = 2, #ARGV, 2 do
  local session = load_owned(ARGV[i], ARGV[i + 1])
  if session then
    owned = owned + 1
    local life = owned_life(session)
    redis.call('PEXPIRE', session_key(session.client), text(life))  -- rule: lapse_replays/2, ttl_connected
    redis.call('SADD', served_key(node), session.client)
    expire_not_before(served_key(node), life)
    if session.away == '1' then
      redis.call('PEXPIRE', session.inbox, text(life))
      keep_away_sets(session, life)
    end
  end
end
return owned
