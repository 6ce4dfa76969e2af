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

local answer, is_new = {}, {}
local function joined_at(join, now)
  answer[#answer + 1] = join
  answer[#answer + 1] = now
end

for at = 4, #ARGV, 2 do
  local room = ARGV[at]
  local field = session.rooms[room]
  if field and (ARGV[at + 1] == '1' or is_new[room]) then  -- rule: resub_keeps_join, lost_join
    joined_at(string.match(field, '^%d+'), '0')
  elseif not field and count >= most then
    joined_at('', '0')
  else
    if not field then count = count + 1 end
    local n = redis.call('HGET', meta_key(room), 'n') or '0'
    session.rooms[room], is_new[room] = text(offset) .. ':' .. n, true
    redis.call('HSET', key, 'r:' .. room, session.rooms[room])
    if session.away == '1' then  -- rule: sub_adds_away
      redis.call('SADD', away_key(room), session.inbox)
      expire_not_before(away_key(room), away_set_life(session))
    end
    joined_at(text(offset), '1')
  end
end
return answer
