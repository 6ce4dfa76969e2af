-- Notice that Redis has forgotten what a node had already seen, and remember it for all sessions.
--
-- KEYS  1 clock
-- ARGV  1 newest offset that the node has seen   2 milliseconds to remember it   3 the bus channel of all nodes
-- Answer: '1' where something was forgotten

local seen, head = tonumber(ARGV[1]), clock()
if seen <= head then return '0' end
local from, before = head, seen + 1
local known = redis.call('GET', base .. 'reset')
if known then
  local a, b = split(known)
  from, before = math.min(from, a), math.max(before, b)
end
redis.call('SET', base .. 'reset', text(from) .. ':' .. text(before), 'PX', ARGV[2])
redis.call('SET', KEYS[1], text(seen))
redis.call('PUBLISH', ARGV[3], 'reset')
return '1'
