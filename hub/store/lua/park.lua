-- live -> away, and write back what is proven to have arrived.
--
-- KEYS  1 clock
-- ARGV  1 client id   2 owner   3 proven position   4 '1': its connection is gone
-- Answer: 'ok', 'gone' or 'replaced'

local session, refusal = owned(ARGV[1], ARGV[2])
if not session then return refusal end
park(session, ARGV[4] == '1')
if ARGV[4] == '1' then redis.call('HDEL', session_key(session.client), 'owner') end
if tonumber(ARGV[3]) > tonumber(session.pos) then redis.call('HSET', session_key(session.client), 'pos', ARGV[3]) end
return 'ok'
