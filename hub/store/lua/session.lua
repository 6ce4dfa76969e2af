-- What the scripts of sessions share: the session's hash, the fence, and the park. It comes after common.lua.
--
-- The fields of a session's hash:
--   gen, serial, secret    generation, version and hashed secret of its pid; without a secret no pid proves it
--   sid                    its Socket.IO id
--   owner, takes, served   '<node>/<connection>' of the owner; its epoch: how often it was claimed; the active owner, which
--                          was sent its first batch
--   anon, life             '1': it has no name; milliseconds that it outlives its connection
--   away, mark             '1': it is away; the clock when it was parked
--   pos                    its position: everything up to this offset has arrived
--   r:<room>               '<join offset>:<the room's number then>'
--   p:<room>               from a park on: '<the room's newest offset>:<its number>' at the park
--   reset, told            the offsets between which its client has seen more than Redis has; the end of the gaps that
--                          were reported
--   foreign                an offset of another session, which came with its last claim
--   progress               written by earlier versions. Scripts remove it, or try to, where their first write has to be a
--                          removal: after that the others pass when Redis is full

-- Milliseconds after which an owned session expires if nobody renews it, because every node has died.
local function owned_life(session) return 3 * tonumber(session.life) end

-- Read a session; nil: there is none. `rooms`: {join, n} of each room; `parked`: {last, n} of each room at the park.
local function load_session(client)
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

-- Read of a session only what joining some of its rooms takes: most rooms of a session in many are not of interest then.
local function load_part(client, rooms)
  local key = session_key(client)
  local flat = redis.call('HMGET', key, 'gen', 'owner', 'away', 'life')
  if not flat[1] then return nil end
  local session = { client = client, gen = flat[1], owner = flat[2], away = flat[3], life = flat[4], rooms = {}, parked = {} }
  for _, room in ipairs(rooms) do
    local pair = redis.call('HMGET', key, 'r:' .. room, 'p:' .. room)
    if pair[1] then
      local join, n = split(pair[1])
      session.rooms[room] = { join = join, n = n }
    end
    session.parked[room] = pair[2] or nil
  end
  session.inbox = inbox_key(client, session.gen)
  return session
end

-- The fence: read a session for its owner, all of it or only these rooms of it. Any other connection gets nil and the
-- refusal: 'gone', the session has ended, or 'replaced', another connection owns it.
local function load_owned(client, owner, rooms)
  local session
  if rooms then session = load_part(client, rooms) else session = load_session(client) end
  if not session then return nil, 'gone' end
  if session.owner ~= owner then return nil, 'replaced' end  -- rule: fence_all
  return session
end

local function node_of(owner) return string.match(owner, '^[^/]*') end

-- live -> away: set the flag, begin an inbox with the clock, enter the away sets of the rooms. An away session keeps its
-- inbox. `disconnected`: its connection or its node has ended, so its life begins to run.
local function park(session, disconnected)
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
  local life = owned_life(session)
  if disconnected then
    life = tonumber(session.life)
    redis.call('SREM', served_key(node_of(session.owner or '')), session.client)
  end
  redis.call('PEXPIRE', key, text(life))
  redis.call('PEXPIRE', session.inbox, text(life))
  for room in pairs(session.rooms) do expire_not_before(away_key(room), life) end
end
