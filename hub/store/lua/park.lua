-- Park a session, live -> away, and store its acknowledged position.
--
-- KEYS  1 clock
-- ARGV  1 client id   2 owner   3 acknowledged position   4 '1': its connection has ended
--       5 '1': its client has left deliberately, so its pid is void
-- Answer: 'ok', 'gone' or 'replaced'

local session, refusal = load_owned(ARGV[1], ARGV[2])
if not session then return refusal end
local disconnected = ARGV[4] == '1'
park(session, disconnected)
local key = session_key(session.client)
if disconnected then redis.call('HDEL', key, 'owner') end
if ARGV[5] == '1' then redis.call('HDEL', key, 'secret') end
if tonumber(ARGV[3]) > tonumber(session.pos) then redis.call('HSET', key, 'pos', ARGV[3]) end
return 'ok'
