-- What most scripts share: the names of the keys, offsets, expiries, log entries. scripts.py puts it before each of them.
--
-- KEYS[1] is always `<base>clock`. The names of all other keys are made here, with the words of keys.py.

local base = string.sub(KEYS[1], 1, -6)

-- One run of a script passes over so many log entries, a long one counted as several, that it hands out to nobody: they
-- are not for this client, or their ttl is over.
local MOST_PASSED_OVER = 1000
local function cost(body) return 1 + #body / 1024 end

-- One run reads so many bytes of log entries only to find out where its rooms are. An entry with a longer body than
-- LONG_BODY is not read a second time for that.
local MOST_PEEKED = 4000000
local LONG_BODY = 1024

local function session_key(client) return base .. 'session:' .. client end
local function inbox_key(client, gen) return base .. 'inbox:' .. client .. ':' .. gen end  -- rule: gen_in_key/1
local function log_key(room) return base .. 'room:' .. room .. ':log' end
local function meta_key(room) return base .. 'room:' .. room .. ':meta' end
local function away_key(room) return base .. 'room:' .. room .. ':away' end
local function served_key(node) return base .. 'node:' .. node .. ':sessions' end

local function text(number) return string.format('%.0f', number) end

local function clock() return tonumber(redis.call('GET', KEYS[1]) or '0') end

local function microseconds()
  local t = redis.call('TIME')
  return tonumber(t[1]) * 1000000 + tonumber(t[2])
end

-- Give out the next offset: later than every other one, and later than `seen`, the newest that a node has seen.
local function next_offset(seen)
  local offset = text(math.max(microseconds(), clock() + 1, seen + 1))
  redis.call('SET', KEYS[1], offset)
  return offset
end

-- Let a key live for at least so long. (PEXPIRE has no GT before Redis 7.)
local function expire_not_before(key, ms)
  if redis.call('PTTL', key) < ms then redis.call('PEXPIRE', key, text(ms)) end
end

-- Take a pair of numbers apart that is stored as '<first>:<second>'.
local function split(pair)
  local at = string.find(pair, ':', 1, true)
  return tonumber(string.sub(pair, 1, at - 1)), tonumber(string.sub(pair, at + 1))
end

-- A log entry is {id, {'n', number, 'p', the room's offset before, 'k', header, 'm', body}}.
local function entry_offset(entry) return string.match(entry[1], '^%d+') end

-- Tell whether a client gets a log entry: it is not its own with echo off, and its ttl is not over.
local function meant_for(client, entry, now)
  local skip_client, ttl = string.match(entry[2][6], '^%S+ %S+ %S+ (%S+) (%S+)')
  return skip_client ~= client and (ttl == '0' or entry_offset(entry) + ttl > now)
end
