-- Store acknowledged positions.
--
-- KEYS  1 clock
-- ARGV  client id, owner, position; and so on for each session
-- Answer: how many of the owners own their sessions

local owned = 0
for i = 1, #ARGV, 3 do
  local key, owner, position = session_key(ARGV[i]), ARGV[i + 1], ARGV[i + 2]
  local session = redis.call('HMGET', key, 'owner', 'pos')
  if session[1] == owner then
    owned = owned + 1
    if tonumber(position) > tonumber(session[2]) then redis.call('HSET', key, 'pos', position) end
  end
end
return owned
