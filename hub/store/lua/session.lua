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
--   parked                 a line for each room that it was in when it was parked: '<the room's newest offset then> <its
--                          number then> <room>'; removed when it is live again
--   sets                   while it is away: until this time, in milliseconds, the away sets of its rooms exist at least
--   reset, told            the offsets between which its client has seen more than Redis has; the end of the gaps that
--                          were reported
--   foreign                an offset of another session, which came with its last claim
--   progress               written by earlier versions. Scripts remove it, or try to, where their first write has to be a
--                          removal: after that the others pass when Redis is full

-- Milliseconds after which an owned session expires if nobody renews it, because every node has died.
local function owned_life(session) return 3 * tonumber(session.life) end

-- Read a session; nil: there is none. `rooms`: the field of each room, which `joined` takes apart.
local function load_session(client)
  local flat = redis.call('HGETALL', session_key(client))
  if #flat == 0 then return nil end
  local session = { client = client, rooms = {} }
  for i = 1, #flat, 2 do
    local field, value = flat[i], flat[i + 1]
    local kind = string.sub(field, 1, 2)
    if kind == 'r:' then
      session.rooms[string.sub(field, 3)] = value
    else
      session[field] = value
    end
  end
  session.inbox = inbox_key(client, session.gen)
  return session
end

-- Return where a session joined a room: the offset, and the room's number then.
local function joined(session, room) return split(session.rooms[room]) end

-- Return {last, n}, where a room was when the session was parked: its newest offset, and its number. Nil: the session was
-- not parked, or the room's newest join is later than the park. Few returns ask for it, so the field is taken apart when
-- one does.
local function room_at_park(session, room)
  if not session.parked or joined(session, room) > tonumber(session.mark) then return nil end
  if not session.rooms_at_park then
    session.rooms_at_park = {}
    for last, n, name in string.gmatch(session.parked, '(%d+) (%d+) ([^\n]*)\n') do
      session.rooms_at_park[name] = { last = tonumber(last), n = tonumber(n) }
    end
  end
  return session.rooms_at_park[room]
end

-- Read a room's numbers, {from, n, last, base, conditional}, if it has messages after an offset and after the session has
-- joined it; nil: it has none. `from`: the later one of the two; `base`: the number where its count began; `conditional`:
-- whether one of these messages is not for everybody. Most rooms of a session have nothing new, so a room is asked for its
-- newest offset first, and for the rest only then.
local function room_after(session, room, offset)
  local last = tonumber(redis.call('HGET', meta_key(room), 'last') or '0')
  if last <= offset then return nil end
  local from = math.max(offset, (joined(session, room)))
  if last <= from then return nil end
  local n, base_n, odd = unpack(redis.call('HMGET', meta_key(room), 'n', 'base', 'odd'))
  return { from = from, n = tonumber(n), last = last, base = tonumber(base_n), conditional = odd and tonumber(odd) > from }
end

-- Read of a session only what joining some of its rooms takes: most rooms of a session in many are not of interest then.
local function load_part(client, rooms)
  local key = session_key(client)
  local flat = redis.call('HMGET', key, 'gen', 'owner', 'away', 'life')
  if not flat[1] then return nil end
  local session = { client = client, gen = flat[1], owner = flat[2], away = flat[3], life = flat[4], rooms = {} }
  for _, room in ipairs(rooms) do
    session.rooms[room] = redis.call('HGET', key, 'r:' .. room) or nil
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

-- Milliseconds that an away set is kept where a session enters it or renews it. A claim within the session's life finds
-- the sets there for as long as it needs them, and need not ask for that of each room.
local function away_set_life(session) return owned_life(session) + tonumber(session.life) end

-- Let the away sets of an away session's rooms exist for as long as its inbox, which lives for so many milliseconds. `all`:
-- it has just entered them.
local function keep_away_sets(session, life, all)
  local now = microseconds() / 1000
  if not all and tonumber(session.sets or '0') >= now + life then return end
  local kept = away_set_life(session)
  for room in pairs(session.rooms) do expire_not_before(away_key(room), kept) end
  redis.call('HSET', session_key(session.client), 'sets', text(now + kept))
end

-- live -> away: set the flag, begin an inbox with the clock, enter the away sets of the rooms. An away session keeps its
-- inbox. `disconnected`: its connection or its node has ended, so its life begins to run.
local function park(session, disconnected)
  local key = session_key(session.client)
  redis.call('HDEL', key, 'progress')                          -- a removal first: passes when Redis is full
  local was_live = session.away ~= '1'
  if was_live then
    local mark = text(clock())
    redis.call('DEL', session.inbox)  -- rule: park_from_live/1
    redis.call('RPUSH', session.inbox, mark)  -- rule: park_from_live/2
    local parked = {}
    for room in pairs(session.rooms) do
      local meta = redis.call('HMGET', meta_key(room), 'last', 'n')
      parked[#parked + 1] = (meta[1] or '0') .. ' ' .. (meta[2] or '0') .. ' ' .. room .. '\n'  -- no room has a line feed
      redis.call('SADD', away_key(room), session.inbox)
    end
    redis.call('HSET', key, 'away', '1', 'mark', mark, 'parked', table.concat(parked))
    session.away = '1'
  end
  local life = owned_life(session)
  if disconnected then
    life = tonumber(session.life)
    redis.call('SREM', served_key(node_of(session.owner or '')), session.client)
  end
  redis.call('PEXPIRE', key, text(life))
  redis.call('PEXPIRE', session.inbox, text(life))
  keep_away_sets(session, life, was_live)
end
