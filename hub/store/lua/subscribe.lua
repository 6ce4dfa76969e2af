-- Join a room, from the clock on. If the session is in the room already, the first join counts; unless the connection does
-- not know of it: then the answer to an earlier attempt was lost, and its client did not get the messages since.
--
-- KEYS  1 clock
-- ARGV  1 client id   2 owner   3 room   4 rooms at most   5 '1': the connection knows that it is in the room
-- Answer: {join offset, '1': joined just now}, 'full', 'gone' or 'replaced'

local session, refusal = load_owned(ARGV[1], ARGV[2])
if not session then return refusal end
local room = ARGV[3]
local joined = session.rooms[room]
if joined and ARGV[5] == '1' then return { text(joined.join), '0' } end  -- rule: resub_keeps_join, lost_join
local count = 0
for _ in pairs(session.rooms) do count = count + 1 end
if not joined and count >= tonumber(ARGV[4]) then return 'full' end

local key = session_key(session.client)
local join = text(clock())
local n = redis.call('HGET', meta_key(room), 'n') or '0'
redis.call('HSET', key, 'r:' .. room, join .. ':' .. n)
if session.parked[room] then redis.call('HDEL', key, 'p:' .. room) end
if session.away == '1' then  -- rule: sub_adds_away
  redis.call('SADD', away_key(room), session.inbox)
  expire_not_before(away_key(room), owned_life(session))
end
return { join, '1' }
