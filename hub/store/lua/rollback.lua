-- Notice that Redis has forgotten what a node had already seen, and remember it for all sessions.
--
-- KEYS  1 clock
-- ARGV  1 newest offset that the node has seen   2 milliseconds to remember it   3 the bus channel of all nodes
--       4 room and 5 offset of the newest message that the node knows to lie in a log ('': none)
--       6 microseconds after which a room may be forgotten
-- Answer: '1' where something was forgotten
--
-- What Redis loses is always the end of its past. The clock says so, unless somebody has published since: then it is
-- past everything again, and only a message that is not where it was tells.

local function missing(room, offset)
  if redis.call('XRANGE', log_key(room), offset, offset, 'COUNT', 1)[1] then return false end
  local first = redis.call('XRANGE', log_key(room), '-', '+', 'COUNT', 1)[1]
  local cut = first and first[2][4] or redis.call('HGET', meta_key(room), 'last')
  if cut then return tonumber(cut) < tonumber(offset) end
  return tonumber(offset) > microseconds() - tonumber(ARGV[6])
end

local seen, head = tonumber(ARGV[1]), clock()
local from, before = head, seen + 1
if seen <= head then
  if ARGV[4] == '' or not missing(ARGV[4], ARGV[5]) then return '0' end
  from, before = 0, tonumber(ARGV[5]) + 1
end
local known = redis.call('GET', base .. 'reset')
if known then
  local a, b = split(known)
  from, before = math.min(from, a), math.max(before, b)
end
redis.call('DEL', base .. 'reset')                                -- a removal first: passes when Redis is full
redis.call('SET', base .. 'reset', text(from) .. ':' .. text(before), 'PX', ARGV[2])
if seen > head then redis.call('SET', KEYS[1], text(seen)) end
redis.call('PUBLISH', ARGV[3], 'reset')
return '1'
