-- Leave a room. References to it that are in the inbox are skipped from now on.
--
-- KEYS  1 clock
-- ARGV  1 client id   2 owner   3 room
-- Answer: 'ok', 'gone' or 'replaced'

local session, refusal = load_owned(ARGV[1], ARGV[2])
if not session then return refusal end
local room = ARGV[3]
redis.call('HDEL', session_key(session.client), 'r:' .. room)
redis.call('SREM', away_key(room), session.inbox)
return 'ok'
