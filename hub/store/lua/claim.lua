-- Make a connection the owner of a session: of the one that its pid proves, of the one that it names, or of a new one.
--
-- KEYS  1 clock
-- ARGV  1 client id that the pid or the client names ('': neither)      2 '1': by a client_id that it may claim
--       3 generation, 4 version, 5 hashed secret of the pid ('': no pid; generation 'x': it is not of the named client)
--       6 client id of a new anonymous session    7 hashed secret of a new pid    8 sid of a new session
--       9 owner '<node>/<connection>'            10 the client's offset ('': none) 11 newest offset the node has seen
--      12, 13 life in milliseconds of an anonymous and of a named session         14 prefix of a node's bus channel
-- Answer: {'refused'} or {'new' | 'pid' | 'name', client id, generation, pid version, sid, position, head, missed, epoch,
--          room, join offset, room, join offset, ...}

local name, by_name, newest_seen = ARGV[1], ARGV[2] == '1', tonumber(ARGV[11])
local secret, owner, offset = ARGV[5], ARGV[9], tonumber(ARGV[10])
local session = name ~= '' and load_session(name) or nil
local how, foreign

if session and secret ~= '' then
  local of_session = tonumber(ARGV[3]) == tonumber(session.gen)
  local current = of_session and tonumber(ARGV[4]) == tonumber(session.serial)
  if current and secret == session.secret then
    how = 'pid'
  elseif by_name then
    -- A pid that proves nothing counts as none. The offset beside it counts if the pid names this session and another
    -- version: one that is void, or that Redis has lost. Whether such a pid is forged nobody can know any more; who may
    -- take the name gets a pid of the session anyway, and may send any offset beside that.
    how = 'name'
    if not of_session or (current and session.secret) then foreign, offset = offset, nil end  -- rule: foreign_offset
  end
elseif session then
  how = by_name and 'name' or nil
end
if how == 'name' and session.anon == '1' then return { 'refused' } end
-- Stock clients keep an offset until an event brings another one. So if the connection breaks right after the reply, the
-- offset of the other session comes once more, beside the new pid.
if session and offset and offset == tonumber(session.foreign or '') then foreign, offset = offset, nil end  -- rule: carried_offset

local client = how and name or (by_name and name or ARGV[6])
local key = session_key(client)
-- A removal first: passes when Redis is full.
if how then redis.call('HDEL', key, 'progress', 'foreign') else redis.call('DEL', key) end

local head
if not how then
  local gen = next_offset(newest_seen)
  session = { client = client, gen = gen, serial = '0', sid = ARGV[8], pos = gen, rooms = {}, away = '0' }
  head = tonumber(gen)
  if by_name then
    local room = '@' .. client
    local n = redis.call('HGET', meta_key(room), 'n') or '0'
    session.rooms[room] = gen .. ':' .. n
    redis.call('HSET', key, 'r:' .. room, session.rooms[room])
  end
elseif how == 'name' then
  -- The version is a time, so that one that a failover has lost is not given out again, with another secret.
  session.serial = text(math.max(session.serial + 1, microseconds()))  -- rule: serials_are_times
  session.sid = ARGV[8]
  redis.call('HSET', key, 'serial', session.serial, 'secret', ARGV[7], 'sid', ARGV[8])
end

if how then
  head = clock()
  local position = tonumber(session.pos)
  if offset and offset > head then
    -- The client has seen more than this Redis has: nobody knows what else is lost.
    redis.call('HSET', key, 'reset', text(position) .. ':' .. text(head + 1))
  elseif offset then
    position = offset
    if session.reset then
      local _, before = split(session.reset)
      if offset >= before then redis.call('HDEL', key, 'reset') end
    end
  end
  session.pos = text(position)
  redis.call('HSET', key, 'pos', session.pos)
  if foreign then redis.call('HSET', key, 'foreign', text(foreign)) end
  if session.owner and session.owner ~= owner then
    local node, connection = string.match(session.owner, '^(.-)/(.*)$')
    redis.call('SREM', served_key(node), client)
    redis.call('PUBLISH', ARGV[14] .. node, 'fence ' .. connection)
  end
end
session.anon = session.anon or (by_name and '0' or '1')
local life_before = session.life
session.life = session.anon == '1' and ARGV[12] or ARGV[13]
if how then
  redis.call('HSET', key, 'owner', owner, 'anon', session.anon, 'life', session.life)
else
  redis.call('HSET', key, 'gen', session.gen, 'serial', '0', 'secret', ARGV[7], 'sid', session.sid, 'pos', session.pos,
    'away', '0', 'owner', owner, 'anon', session.anon, 'life', session.life, 'takes', '1')
end
local served, life = served_key(node_of(owner)), owned_life(session)
redis.call('SADD', served, client)
expire_not_before(served, life)
redis.call('PEXPIRE', key, text(life))  -- rule: ttl_connected
if session.away == '1' then
  redis.call('PEXPIRE', inbox_key(client, session.gen), text(life))
  keep_away_sets(session, life, session.life ~= life_before)
end

local epoch = how and text(redis.call('HINCRBY', key, 'takes', 1)) or '1'
local answer = { how or 'new', client, session.gen, session.serial, session.sid, session.pos, text(head), '0', epoch }
-- The messages that the session missed are counted by running numbers. In a room with conditional messages the log is read,
-- to count only those that are for this client: so many entries and KiB of it, and all after that counts. No more bytes
-- than MOST_PEEKED are read: in the rooms left then, everything since the park or the join counts.
local missed, now, may_read, peeked = 0, how and microseconds(), MOST_PASSED_OVER, 0
local position = tonumber(session.pos)
for room, field in pairs(session.rooms) do
  answer[#answer + 1] = room
  answer[#answer + 1] = string.match(field, '^%d+')
  if how then
    local state = room_after(session, room, position)
    if state then
      local entry, counted
      if peeked <= MOST_PEEKED then
        entry = redis.call('XRANGE', log_key(room), '(' .. text(state.from), '+', 'COUNT', 1)[1]
        counted = entry and entry[2][2] - 1 or state.n
        peeked = peeked + (entry and #entry[2][8] or 0)
      else
        local parked, _, n = room_at_park(session, room), joined(session, room)
        counted = math.max(parked and parked.n or n, state.base)
      end
      while state.conditional and entry and may_read > 0 do
        if meant_for(client, entry, now) then missed = missed + 1 end
        counted = tonumber(entry[2][2])
        may_read = may_read - cost(entry[2][8])
        entry = redis.call('XRANGE', log_key(room), '(' .. entry[1], '+', 'COUNT', 1)[1]
      end
      missed = missed + state.n - counted
    end
  end
end
answer[8] = text(missed)
return answer
