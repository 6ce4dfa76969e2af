-- Leave a room. References to it that lie in the inbox are skipped from now on.
--
-- KEYS  1 clock
-- ARGV  1 client id   2 owner   3 room
-- Answer: 'ok', 'gone' or 'replaced'

local session, refusal = owned(ARGV[1], ARGV[2])
if not session then return refusal end
local key = session_key(session.client)
redis.call('HDEL', key, 'r:' .. ARGV[3], 'p:' .. ARGV[3])
redis.call('SREM', away_key(ARGV[3]), session.inbox)
return 'ok'
