-- What several scripts share; put in front of each of them but publish.
--
-- KEYS[1] is always `<base>clock`. Everything else is named here, in the words of keys.py.
--
-- A session hash has the fields gen, serial, secret, sid, owner, takes (how often it was taken), anon, life
-- (milliseconds that it outlives its connection), away, mark (the clock when it was parked), pos, reset, progress, told
-- (up to where gaps that were told reach), and for each `r:<room>` = "<join offset>:<n at joining>"
-- and, from a park on, `p:<room>` = "<last offset>:<n>" at the park.

local base = string.sub(KEYS[1], 1, -6)

-- Log entries and KiB that one run of a script looks at in vain, as they are for others, or for nobody any more.
local LOOKED = 1000
local function cost(body) return 1 + #body / 1024 end

-- Bytes of log entries that one run reads only to see where its rooms stand; and bytes of a body above which an entry is
-- a long one, so that it is not read again for that.
local PEEKED = 4000000
local LONG = 1024

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

-- Give out the next offset: later than every other one, and than `least`, which somebody has already seen.
local function tick(least)
  local offset = text(math.max(microseconds(), clock() + 1, least + 1))
  redis.call('SET', KEYS[1], offset)
  return offset
end

-- Let a key live at least so long; GT of PEXPIRE is younger than Redis 6.2.
local function outlive(key, ms)
  if redis.call('PTTL', key) < ms then redis.call('PEXPIRE', key, text(ms)) end
end

local function split(pair)
  local at = string.find(pair, ':', 1, true)
  return tonumber(string.sub(pair, 1, at - 1)), tonumber(string.sub(pair, at + 1))
end

-- Whether a log entry is for this client still: neither its own with echo off, nor past its ttl.
local function meant_for(client, entry, now)
  local skip, ttl = string.match(entry[2][6], '^%S+ %S+ %S+ (%S+) (%S+)')
  return skip ~= client and (ttl == '0' or string.match(entry[1], '^%d+') + ttl > now)
end

-- How long a session that a connection owns is kept without being renewed, should everybody die.
local function kept(session) return 3 * tonumber(session.life) end

-- The fields of a session; nil where there is none.
local function load(client)
  local flat = redis.call('HGETALL', session_key(client))
  if #flat == 0 then return nil end
  local session = { client = client, rooms = {}, parked = {} }
  for i = 1, #flat, 2 do
    local field, value = flat[i], flat[i + 1]
    local kind = string.sub(field, 1, 2)
    if kind == 'r:' then
      local join, n = split(value)
      session.rooms[string.sub(field, 3)] = { join = join, n = n }
    elseif kind == 'p:' then
      local last, n = split(value)
      session.parked[string.sub(field, 3)] = { last = last, n = n }
    else
      session[field] = value
    end
  end
  session.inbox = inbox_key(client, session.gen)
  return session
end

-- Fencing: whoever is not the owner changes nothing, and is told whether the session has 'gone' or another
-- connection has 'replaced' it.
local function owned(client, owner)
  local session = load(client)
  if not session then return nil, 'gone' end
  if session.owner ~= owner then return nil, 'replaced' end  -- rule: fence_all
  return session
end

-- live -> away: the flag, a list that begins with the mark, the away sets of its rooms. Parking an away session
-- leaves its list alone. `unserved`: nobody serves it, so its life begins to run.
local function park(session, unserved)
  local key = session_key(session.client)
  redis.call('HDEL', key, 'progress')                          -- a removal first: passes when Redis is full
  if session.away ~= '1' then
    local mark = text(clock())
    redis.call('DEL', session.inbox)  -- rule: park_from_live/1
    redis.call('RPUSH', session.inbox, mark)  -- rule: park_from_live/2
    redis.call('HSET', key, 'away', '1', 'mark', mark)
    session.away = '1'
    for room in pairs(session.rooms) do
      local meta = redis.call('HMGET', meta_key(room), 'last', 'n')
      redis.call('HSET', key, 'p:' .. room, (meta[1] or '0') .. ':' .. (meta[2] or '0'))
      redis.call('SADD', away_key(room), session.inbox)
    end
  end
  local ttl = kept(session)
  if unserved then
    ttl = tonumber(session.life)
    redis.call('SREM', served_key(string.match(session.owner or '', '^[^/]*')), session.client)
  end
  redis.call('PEXPIRE', key, text(ttl))
  redis.call('PEXPIRE', session.inbox, text(ttl))
  for room in pairs(session.rooms) do outlive(away_key(room), ttl) end
end
