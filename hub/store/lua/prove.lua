-- Write back proven positions.
--
-- KEYS  1 clock
-- ARGV  client id, owner, position; and so on for each session
-- Answer: how many of them the owners still own

local known = 0
for i = 1, #ARGV, 3 do
  local key = session_key(ARGV[i])
  local session = redis.call('HMGET', key, 'owner', 'pos')
  if session[1] == ARGV[i + 1] then
    known = known + 1
    if tonumber(ARGV[i + 2]) > tonumber(session[2]) then redis.call('HSET', key, 'pos', ARGV[i + 2]) end
  end
end
return known
