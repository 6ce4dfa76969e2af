-- Write a message once: its offset, the room's log, a reference into the inbox of each away session, the bus.
--
-- KEYS  1 clock   2 the room's log   3 its meta   4 its away set   5 idempotency key (absent: none)
-- ARGV  1 room               2 its bus channel     3 header           4 body
--       5 newest offset that the node has seen     6 '1': volatile (offset and bus only)
--       7 '1': some sessions are not to count this message (echo off or ttl)
--       8 log length         9 log age in microseconds                10 log age in milliseconds
--      11 milliseconds that meta outlives the last message            12 inbox length
--      13 life of the idempotency key in milliseconds
-- Answer: the offset; behind '=' where the idempotency key had been seen.

if KEYS[5] then
  local seen = redis.call('GET', KEYS[5])
  if seen then return '=' .. seen end
end
local t = redis.call('TIME')
local offset = math.max(t[1] * 1000000 + t[2], (redis.call('GET', KEYS[1]) or 0) + 1, ARGV[5] + 1)
local id = string.format('%.0f', offset)
local number = '0'

if ARGV[6] ~= '1' then
  local meta = redis.call('HMGET', KEYS[3], 'n', 'last', 'renewed')
  -- Where nothing is remembered the count begins at the clock, so that a number never comes twice.
  local n = meta[1] and meta[1] + 1 or offset
  number = string.format('%.0f', n)
  -- The first write, and the one that a full Redis refuses: what follows is never half done.
  -- `p`, the room's offset before, says of the oldest entry what was cut away in front of it.
  redis.call('XADD', KEYS[2], 'MAXLEN', '=', ARGV[8], id, 'n', number, 'p', meta[2] or '0', 'k', ARGV[3], 'm', ARGV[4])
  -- Age and expiry are looked after once in a thousandth of the log's age, which they are longer for it: 86 s of 24 h.
  local slack = ARGV[9] / 1000
  if not meta[3] or offset - meta[3] >= slack then
    redis.call('XTRIM', KEYS[2], 'MINID', '=', string.format('%.0f', math.max(offset - ARGV[9], 0)))
    redis.call('HSET', KEYS[3], 'n', number, 'last', id, 'renewed', id)
    if not meta[1] then redis.call('HSET', KEYS[3], 'base', string.format('%.0f', n - 1)) end
    local late = math.ceil(slack / 1000)
    redis.call('PEXPIRE', KEYS[2], string.format('%.0f', ARGV[10] + late))
    redis.call('PEXPIRE', KEYS[3], string.format('%.0f', ARGV[11] + late))
  else
    redis.call('HSET', KEYS[3], 'n', number, 'last', id)
  end
  if ARGV[7] == '1' then redis.call('HSET', KEYS[3], 'odd', id) end
  local away = redis.call('SMEMBERS', KEYS[4])
  local count = #away
  if count > 0 then
    local call = redis.call
    local reference = id .. ':' .. ARGV[1]
    local most = ARGV[12] + 1                                    -- references, and the boundary in front of them
    -- In chunks, and out of step from client to client: a full inbox costs a trim only now and then.
    local chunk = math.min(128, math.floor(most / 8))
    local least = most - chunk
    local turn = n % math.max(chunk, 1)
    for i = 1, count do
      local inbox = away[i]
      local length = call('RPUSHX', inbox, reference)
      if length > least then
        if length > most or i % chunk == turn then call('LTRIM', inbox, -math.max(least, 1), -1) end
      elseif length == 0 then
        call('SREM', KEYS[4], inbox)                             -- its session has ended
      end
    end
  end
end
redis.call('SET', KEYS[1], id)
if KEYS[5] then redis.call('SET', KEYS[5], id, 'PX', ARGV[13]) end
redis.call('PUBLISH', ARGV[2], id .. ' ' .. number .. ' ' .. ARGV[3] .. '\n' .. ARGV[4])
return id
