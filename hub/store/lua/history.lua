-- Read a room's log.
--
-- KEYS  1 clock   2 the room's log   3 its meta
-- ARGV  1 after ('': from the end)   2 before ('': up to the clock)   3 messages at most   4 bytes at most
-- Answer: {messages, '1' where there are more, '1' where the log no longer reaches back to `after`, entries looked at,
--         offset of the last of them or ''}; a message is {offset, n, header, body}; ascending

local limit, bytes = tonumber(ARGV[3]), tonumber(ARGV[4])
local forward = ARGV[1] ~= ''
local low = forward and '(' .. ARGV[1] or '-'
-- An upper end without its sequence stands for the highest one, itself included; `(0-0` would be an error.
local high = ARGV[2] ~= '' and text(math.max(ARGV[2] - 1, 0)) or '+'
local now = microseconds()
local found, size, more, looked, reached, spent = {}, 0, '0', 0, '', 0

-- In chunks that grow: entries can be long, and few of them fill an answer then.
local chunk, count = nil, 1
repeat
  count = math.min(2 * count, 20, limit - #found + 1)
  if forward then
    chunk = redis.call('XRANGE', KEYS[2], low, high, 'COUNT', count)
  else
    chunk = redis.call('XREVRANGE', KEYS[2], high, low, 'COUNT', count)
  end
  for _, entry in ipairs(chunk) do
    local header, body = entry[2][6], entry[2][8]
    if meant_for('', entry, now) then
      size = size + #body
      if #found == limit or (size > bytes and #found > 0) then more = '1' break end
      found[#found + 1] = { string.match(entry[1], '^%d+'), entry[2][2], header, body }
    else
      if spent >= LOOKED then more = '1' break end
      spent = spent + cost(body)
    end
    looked, reached = looked + 1, string.match(entry[1], '^%d+')
    if forward then low = '(' .. entry[1] else high = '(' .. entry[1] end
  end
until more == '1' or #chunk < count

if not forward then
  local i, j = 1, #found
  while i < j do
    found[i], found[j] = found[j], found[i]
    i, j = i + 1, j - 1
  end
end

local gap = '0'
if forward then
  local first = redis.call('XRANGE', KEYS[2], '-', '+', 'COUNT', 1)[1]
  local cut = first and first[2][4] or redis.call('HGET', KEYS[3], 'last') or '0'
  if tonumber(cut) > tonumber(ARGV[1]) then gap = '1' end
end
return { found, more, gap, looked, reached }
