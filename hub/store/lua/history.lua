-- Read a slice of a room's log.
--
-- KEYS  1 clock   2 the room's log   3 its meta
-- ARGV  1 after ('': from the end)   2 before ('': up to the clock)   3 messages at most   4 bytes at most
-- Answer: {messages, '1': there are more, '1': the log no longer reaches back to `after`, entries examined,
--         offset of the last of them or ''}; a message is {offset, n, header, body}; ascending

local limit, most_bytes = tonumber(ARGV[3]), tonumber(ARGV[4])
local forward = ARGV[1] ~= ''
local low = forward and '(' .. ARGV[1] or '-'
-- An upper end without a sequence stands for the highest sequence, itself included; `(0-0` would be an error.
local high = ARGV[2] ~= '' and text(math.max(ARGV[2] - 1, 0)) or '+'
local now = microseconds()
local found, bytes, more, examined, reached, passed_over = {}, 0, '0', 0, '', 0

-- In chunks that grow: entries can be long, and a few of them fill an answer then.
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
      bytes = bytes + #body
      if #found == limit or (bytes > most_bytes and #found > 0) then more = '1' break end
      found[#found + 1] = { entry_offset(entry), entry[2][2], header, body }
    else
      if passed_over >= MOST_PASSED_OVER then more = '1' break end
      passed_over = passed_over + cost(body)
    end
    examined, reached = examined + 1, entry_offset(entry)
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
  local cut_up_to = first and first[2][4] or redis.call('HGET', KEYS[3], 'last') or '0'
  if tonumber(cut_up_to) > tonumber(ARGV[1]) then gap = '1' end
end
return { found, more, gap, examined, reached }
