-- Join rooms, one after the other, from the clock on. If the session is in a room already, the first join counts; unless the
-- connection does not know of it: then the answer to an earlier attempt was lost, and its client did not get the messages
-- since.
--
-- KEYS  1 clock
-- ARGV  1 client id   2 owner   3 rooms at most   4.. room, '1': the connection knows that it is in the room; the next room …
-- Answer: {join offset, '1': joined just now, …} for each room, with '' as offset of a room too many; 'gone' or 'replaced'

local rooms = {}
for at = 4, #ARGV, 2 do rooms[#rooms + 1] = ARGV[at] end
local session, refusal = load_owned(ARGV[1], ARGV[2], rooms)
if not session then return refusal end
local key, most, offset = session_key(session.client), tonumber(ARGV[3]), clock()

-- The rooms of the session are counted only where its hash has so many fields that they may be too many.
local count = redis.call('HLEN', key)
if count + #rooms > most then
  count = 0
  for _, field in ipairs(redis.call('HKEYS', key)) do
    if string.sub(field, 1, 2) == 'r:' then count = count + 1 end
  end
end

local answer = {}
local function joined_at(join, now)
  answer[#answer + 1] = join
  answer[#answer + 1] = now
end

for at = 4, #ARGV, 2 do
  local room = ARGV[at]
  local joined = session.rooms[room]
  if joined and (ARGV[at + 1] == '1' or joined.now) then  -- rule: resub_keeps_join, lost_join
    joined_at(text(joined.join), '0')
  elseif not joined and count >= most then
    joined_at('', '0')
  else
    if not joined then count = count + 1 end
    local n = redis.call('HGET', meta_key(room), 'n') or '0'
    redis.call('HSET', key, 'r:' .. room, text(offset) .. ':' .. n)
    if session.away == '1' then  -- rule: sub_adds_away
      redis.call('SADD', away_key(room), session.inbox)
      expire_not_before(away_key(room), owned_life(session))
    end
    session.rooms[room] = { join = offset, n = tonumber(n), now = true }
    joined_at(text(offset), '1')
  end
end
return answer
