-- Find out whether Redis has lost messages that a node has seen, and store the loss for all sessions.
--
-- KEYS  1 clock
-- ARGV  1 newest offset that the node has seen   2 milliseconds to remember a loss   3 the bus channel of all nodes
--       4 room and 5 offset of the newest message that the node knows to be in a log ('': none)
--       6 microseconds after which a room may be forgotten
-- Answer: '1': something is lost
--
-- Redis always loses the end of its data. The clock shows it, unless somebody has published since: then the clock is past
-- everything again, and only a message that is missing from its log shows it.

-- How many losses are remembered; if there are more, the oldest two become one.
local MOST_LOSSES = 8

local function is_missing(room, offset)
  if redis.call('XRANGE', log_key(room), offset, offset, 'COUNT', 1)[1] then return false end
  local first = redis.call('XRANGE', log_key(room), '-', '+', 'COUNT', 1)[1]
  local cut_up_to = first and first[2][4] or redis.call('HGET', meta_key(room), 'last')
  if cut_up_to then return tonumber(cut_up_to) < tonumber(offset) end
  return tonumber(offset) > microseconds() - tonumber(ARGV[6])
end

local seen, head, now = tonumber(ARGV[1]), clock(), microseconds()
local from, before = head, seen + 1  -- rule: loss_told
if seen <= head then
  if ARGV[4] == '' or not is_missing(ARGV[4], ARGV[5]) then return '0' end  -- rule: loss_overtaken
  from, before = 0, tonumber(ARGV[5]) + 1
end
-- Each loss is stored by itself, the newest first: messages published between two losses are part of neither, and would
-- hide the end of the first. Two nodes that detect the same loss store it once.
local losses, known = {}, false
for pair in string.gmatch(redis.call('GET', base .. 'reset') or '', '%S+') do
  local a, b = split(pair)
  known = known or (a < before and before <= b)
  if b > now - 1000 * ARGV[2] then losses[#losses + 1] = { a, b } end
end
local newest = losses[1]
if not known and newest and from > 0 and from < newest[2] then
  newest[1], newest[2] = math.min(newest[1], from), math.max(newest[2], before)   -- nothing was published since
elseif not known then
  table.insert(losses, 1, { from, before })  -- rule: each_loss
end
if #losses > MOST_LOSSES then
  local oldest = table.remove(losses)
  losses[MOST_LOSSES][1] = oldest[1]
end
for i, loss in ipairs(losses) do losses[i] = text(loss[1]) .. ':' .. text(loss[2]) end
redis.call('DEL', base .. 'reset')                                -- a removal first: passes when Redis is full
redis.call('SET', base .. 'reset', table.concat(losses, ' '), 'PX', ARGV[2])
if seen > head then redis.call('SET', KEYS[1], text(seen)) end
redis.call('PUBLISH', ARGV[3], 'reset')
return '1'
