-- Find out which commands the user of this connection may not run. Redis before 7 cannot be asked.
--
-- KEYS  1 clock
-- ARGV  1 a channel of the hub   from 2 on: commands
-- Answer: those of them that are not allowed with the hub's keys and channels

local of_channels = { publish = true, subscribe = true, unsubscribe = true }
local forbidden = {}
if not redis.acl_check_cmd then return forbidden end
for i = 2, #ARGV do
  local known, allowed = pcall(redis.acl_check_cmd, ARGV[i], of_channels[ARGV[i]] and ARGV[1] or KEYS[1])
  if not (known and allowed) then forbidden[#forbidden + 1] = ARGV[i] end
end
return forbidden
