-- End a session for good.
--
-- KEYS  1 clock
-- ARGV  1 client id   2 owner
-- Answer: 'ok', 'gone' or 'replaced'

local session, refusal = load_owned(ARGV[1], ARGV[2])
if not session then return refusal end
redis.call('DEL', session_key(session.client), session.inbox)
for room in pairs(session.rooms) do redis.call('SREM', away_key(room), session.inbox) end
redis.call('SREM', served_key(node_of(session.owner)), session.client)
return 'ok'
