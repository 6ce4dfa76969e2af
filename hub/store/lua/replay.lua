-- Hand out the next batch of what a session missed; where nothing is left, make it live in the same step.
--
-- KEYS  1 clock
-- ARGV  1 client id   2 owner   3 after: the position up to which it was handed out   4 messages, 5 bytes at most
--       6 log age in microseconds   7 up to where the client was before Redis may have forgotten something, or `after`
--       8, 9, ... rooms of which the node remembers everything, each and behind which offset
-- Answer: 'gone', 'replaced', or {live-from offset or '', position, gaps, messages, how, microseconds now}
--         a gap is {room, reason, after, before, dropped or ''}, to be told in front of the messages;
--         a message is {room, offset, n, header, body};
--         how: 'memory': the session is live, and the node remembers all it missed; 'whole': the messages are all
--         that came behind the position, and behind the gaps told; 'part': others are not for this client, or unknown
--
-- The head of the inbox is the boundary: everything up to it is read from the logs, everything behind it from the
-- list; no list: everything from the logs. A log is only ever cut at its beginning, so a room can miss messages
-- only between the position and the oldest entry behind it: once a batch, its running numbers tell how many.

local session, refusal = owned(ARGV[1], ARGV[2])
if not session then return refusal end
local key = session_key(session.client)
local after, limit, bytes, doubtful = tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[5]), tonumber(ARGV[7])
local head = clock()

-- The first batch of a connection: it was there when it had taken the session, and has replaced all earlier ones for good.
if session.served ~= ARGV[2] then
  redis.call('HDEL', key, 'progress')                            -- a removal first: passes when Redis is full
  redis.call('HSET', key, 'served', ARGV[2])
end

-- away -> live, from exactly this value of the clock on.
local function go_live()
  if session.progress then redis.call('HDEL', key, 'progress') end
  if session.away == '1' then
    local fields = { 'mark' }
    for room in pairs(session.parked) do fields[#fields + 1] = 'p:' .. room end
    for i = 1, #fields, 100 do redis.call('HDEL', key, unpack(fields, i, math.min(i + 99, #fields))) end
    redis.call('DEL', session.inbox)  -- rule: park_from_live/1
    for room in pairs(session.rooms) do redis.call('SREM', away_key(room), session.inbox) end
    redis.call('HSET', key, 'away', '0')
  end
  redis.call('PEXPIRE', key, text(kept(session)))  -- rule: ttl_connected
end

if not next(session.rooms) then
  go_live()
  return { text(head), ARGV[3], {}, {}, 'whole', text(microseconds()) }
end

-- What Redis is known to have forgotten, by this session's client or by nodes. `since`: from where it counts, the session's
-- own from its position, that for all of them from where it is in doubt. `spare`: what may be missing without being told.
local resets = {}
local function forgotten(losses, since, spare)
  for loss in string.gmatch(losses or '', '%S+') do
    local from, before = split(loss)
    if since < before - spare then resets[#resets + 1] = { from, before, since, spare } end
  end
end
forgotten(session.reset, after, 0)
forgotten(redis.call('GET', base .. 'reset'), doubtful, 1)

-- Where the node remembers everything that came behind the position in each room, nothing is read; unless a gap that
-- was told reaches behind it: what was counted as lost does not come after all.
local told = tonumber(session.told or '0')
local remembered = #ARGV > 7
  and after >= told  -- rule: told_is_lost
  and #resets == 0
local low = {}
for i = 8, #ARGV, 2 do low[ARGV[i]] = tonumber(ARGV[i + 1]) end
for room, joined in pairs(session.rooms) do
  if not remembered then break end
  local from = math.max(after, joined.join)
  local last = redis.call('HGET', meta_key(room), 'last')
  remembered = not last or tonumber(last) <= from or (low[room] ~= nil and low[room] <= from)
end
if remembered then
  go_live()
  return { text(head), text(after), {}, {}, 'memory', text(microseconds()) }
end

-- What earlier batches counted and told, by room: {position, running number there, told up to}. It is good for the
-- position that the last of them led to; where that answer was lost the caller asks again from the position before,
-- and what was good for that is kept beside it. `ahead`: the first entry behind the position, {offset, `n`, `p`}, of
-- rooms where it is a long one: it is not to be read in each batch until it is its turn.
local none = cmsgpack.pack({})
local saved = { at = after, rooms = none, ahead = none }
for _, state in ipairs(session.progress and cmsgpack.unpack(session.progress) or {}) do
  if state.at == after then saved = state end  -- rule: lost_answer
end
local progress, ahead = cmsgpack.unpack(saved.rooms), cmsgpack.unpack(saved.ahead or none)

local function save(...) redis.call('HSET', key, 'progress', cmsgpack.pack({ ... })) end

local boundary, listed = head, false  -- rule: never_empty/2
if session.away == '1' then
  local mark = redis.call('LINDEX', session.inbox, 0)
  if mark then
    boundary = tonumber(string.match(mark, '^%d+'))  -- rule: log_decides
    listed = true
  end
end

-- The room's running number at a position; nil where nobody can know it any more. `n`, `p`: of the first entry behind it.
local function number_at(room, joined, position, n, p)
  local known = progress[room]
  if known
    and known[1] >= joined.join  -- rule: count_from_join
    and known[1] <= position then return known[2] end
  if position <= joined.join then return joined.n end
  if p and p <= position then return n - 1 end
  local before = redis.call('XREVRANGE', log_key(room), text(position), '-', 'COUNT', 1)[1]
  if before then return tonumber(before[2][2]) end
  local parked = session.parked[room]
  if parked and parked.last <= position and session.mark and position <= tonumber(session.mark) then return parked.n end
  return nil
end

-- See what a room has behind the position: a gap in front of its first entry is noted, and a cursor returned that
-- begins with that entry, read or only known.
local gaps, behind, odd, now, how, peeked = {}, {}, {}, microseconds(), 'whole', 0
local function look(room)
  local joined = session.rooms[room]
  local from = math.max(after, joined.join)
  local meta = redis.call('HMGET', meta_key(room), 'n', 'last', 'base', 'odd')
  if not meta[2] or tonumber(meta[2]) <= from then return nil end
  local first, number, p, entry
  if ahead[room] and ahead[room][1] > from then
    first, number, p = unpack(ahead[room])
  else
    entry = redis.call('XRANGE', log_key(room), '(' .. text(from), '+', 'COUNT', 1)[1]
    if entry then
      first, number, p = tonumber(string.match(entry[1], '^%d+')), tonumber(entry[2][2]), tonumber(entry[2][4])
      local size = #entry[2][8]
      if size > LONG then ahead[room], peeked = { first, number, p }, peeked + size end
    end
  end
  local n = number_at(room, joined, from, number, p)
  odd[room] = meta[4] and tonumber(meta[4]) > from
  -- Numbers from before the room was last forgotten say nothing about those after it.
  if n and n < tonumber(meta[3]) then n = tonumber(meta[3]) end
  local reached = first and number - 1 or tonumber(meta[1])
  if n ~= reached then  -- rule: heal_gap, final_gap
    local known = progress[room]
    local start = math.max(from, known and known[3] or 0)
    local before = first or head + 1
    local cut = p or tonumber(meta[2])
    local reason = cut < now - tonumber(ARGV[6]) and 'expired' or 'overflow'
    local dropped = n and not odd[room] and text(reached - n) or ''  -- rule: n_gap
    gaps[#gaps + 1] = { room, reason, text(start), text(before), dropped }
    progress[room] = { from, reached, before - 1 }
  end
  if not first then return nil end
  behind[room] = from
  return { room = room, entries = entry and { entry }, at = 1, offset = first }
end

local heap = {}
for room in pairs(session.rooms) do
  heap[#heap + 1] = look(room)
  if peeked > PEEKED then
    -- Too much for one run: nothing is told, and the caller asks from the same position again.
    redis.call('HDEL', key, 'progress')                          -- a removal first: passes when Redis is full
    save({ at = after, rooms = saved.rooms, ahead = cmsgpack.pack(ahead) })
    return { '', text(after), {}, {}, 'part', text(now) }
  end
end

-- What Redis itself forgot: told for the whole session, and for all of them where a node saw it. What it remembers
-- of a room from before is not lost.
-- A client that has seen more than there is gets told in any case, all others where an offset is missing: between where
-- they were before and what was forgotten, even if they have gone live since, as that may be noticed late.
for i = #resets, 1, -1 do                                          -- the newest is the first
  local from, before, since, spare = unpack(resets[i])
  local name = '\n' .. text(before)                               -- no room's name
  if not progress[name] then
    for room, joined in pairs(session.rooms) do
      local kept = redis.call('XREVRANGE', log_key(room), text(before - 1), '-', 'COUNT', 1)[1]
      local start = math.max(from, since, joined.join, kept and tonumber(string.match(kept[1], '^%d+')) or 0)
      if start < before - spare then
        gaps[#gaps + 1] = { room, 'reset', text(start), text(before), '' }
        how = 'part'
      end
    end
    progress[name] = { after, 0, 0 }
  end
end

local messages, size, position, full, skipped = {}, 0, after, false, 0
local function hand_out(room, entry)
  local body = entry[2][8]
  local offset = string.match(entry[1], '^%d+')
  local known = progress[room]
  if odd[room] and not meant_for(session.client, entry, now) then  -- rule: echo_in_log
    how = 'part'
    if skipped >= LOOKED then
      full = true
      return false
    end
    skipped = skipped + cost(body)
    position = tonumber(offset)
    progress[room] = { position, tonumber(entry[2][2]), known and known[3] or 0 }
    return true
  end
  if #messages == limit or (size + #body > bytes and #messages > 0) then
    full = true
    return false
  end
  size = size + #body
  messages[#messages + 1] = { room, offset, entry[2][2], entry[2][6], body }
  position = tonumber(offset)
  progress[room] = { position, tonumber(entry[2][2]), known and known[3] or 0 }
  return true
end

-- Up to the boundary: the logs, merged by offset. A cursor a room, in a heap with the least offset on top; each begins
-- with the entry that is known, and is refilled in chunks that grow, as rooms can be many and entries long.
local function sink(i)
  local cursor = heap[i]
  while true do
    local child = 2 * i
    if heap[child + 1] and heap[child + 1].offset < heap[child].offset then child = child + 1 end
    if not heap[child] or heap[child].offset >= cursor.offset then break end
    heap[i], i = heap[child], child
  end
  heap[i] = cursor
end

for i = math.floor(#heap / 2), 1, -1 do sink(i) end
while heap[1] and heap[1].offset <= boundary do
  local cursor = heap[1]
  local entry = cursor.entries and cursor.entries[cursor.at]
  if not entry then
    -- Known from an earlier batch, and its turn now; where it was cut away since, that is a gap.
    ahead[cursor.room] = nil
    cursor = look(cursor.room)
  elseif not hand_out(cursor.room, entry) then
    break
  else
    if not cursor.entries[cursor.at + 1] then
      local count = math.min(2 * #cursor.entries, 20)
      cursor.entries = redis.call('XRANGE', log_key(cursor.room), '(' .. entry[1], text(boundary), 'COUNT', count)
      cursor.at = 0
    end
    cursor.at = cursor.at + 1
    local following = cursor.entries[cursor.at]
    if following then
      cursor.offset = tonumber(string.match(following[1], '^%d+'))
    else
      cursor = nil
    end
  end
  heap[1] = cursor or heap[#heap]
  if not cursor then heap[#heap] = nil end
  if heap[1] then sink(1) end
end

-- Behind it: the list. What was handed out may leave it, down to the new boundary: the logs have it still.
if listed and not full then
  local handed, at = 0, 1
  while not full do
    local references = redis.call('LRANGE', session.inbox, at, at + 99)
    for _, reference in ipairs(references) do
      local colon = string.find(reference, ':', 1, true)
      local offset, room = string.sub(reference, 1, colon - 1), string.sub(reference, colon + 1)
      -- Nil where the room was left meanwhile, or has nothing there.
      local from = behind[room]  -- rule: gen_in_key/2, replay_filters/1
      if from and tonumber(offset) > math.max(from, position) then
        local entry = redis.call('XRANGE', log_key(room), offset, offset, 'COUNT', 1)[1]
        if not entry and ahead[room] then
          ahead[room] = nil
          look(room)                                             -- cut away since an earlier batch saw it
        end
        if entry and not hand_out(room, entry) then break end
      end
      handed = handed + 1
    end
    at = at + #references
    if #references < 100 then break end
  end
  if full and handed > 0 then redis.call('LTRIM', session.inbox, handed, -1) end
end

redis.call('HDEL', key, 'progress')                              -- and here
for _, gap in ipairs(gaps) do told = math.max(told, gap[4] - 1) end
if #gaps > 0 then redis.call('HSET', key, 'told', text(told)) end
if full then
  save({ at = position, rooms = cmsgpack.pack(progress), ahead = cmsgpack.pack(ahead) }, saved)
  return { '', text(position), gaps, messages, how, text(now) }
end

go_live()
return { text(head), text(position), gaps, messages, how, text(now) }
