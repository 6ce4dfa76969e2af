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
--         that came behind the position; 'part': others were lost, whenever that was told, or are not for this client
--
-- The head of the inbox is the boundary: everything up to it is read from the logs, everything behind it from the
-- list; no list: everything from the logs. A log is only ever cut at its beginning, so a room can miss messages
-- only between the position and the oldest entry behind it: once a batch, its running numbers tell how many.

local session, refusal = owned(ARGV[1], ARGV[2])
if not session then return refusal end
local key = session_key(session.client)
local after, limit, bytes, doubtful = tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[5]), tonumber(ARGV[7])
local head = clock()

-- away -> live, from exactly this value of the clock on.
local function go_live()
  if session.progress then redis.call('HDEL', key, 'progress') end
  if session.away == '1' then
    local fields = { 'mark' }
    for room in pairs(session.parked) do fields[#fields + 1] = 'p:' .. room end
    for i = 1, #fields, 100 do redis.call('HDEL', key, unpack(fields, i, math.min(i + 99, #fields))) end
    redis.call('DEL', session.inbox)
    for room in pairs(session.rooms) do redis.call('SREM', away_key(room), session.inbox) end
    redis.call('HSET', key, 'away', '0')
  end
  redis.call('PEXPIRE', key, text(kept(session)))
end

if not next(session.rooms) then
  go_live()
  return { text(head), ARGV[3], {}, {}, 'whole', text(microseconds()) }
end

local resets = { session.reset or '', redis.call('GET', base .. 'reset') or '' }

-- Where the node remembers everything that came behind the position in each room, nothing is read; unless a gap that
-- was told reaches behind it: what was counted as lost does not come after all.
local told = tonumber(session.told or '0')
local remembered = #ARGV > 7 and after >= told
local low = {}
for i = 8, #ARGV, 2 do low[ARGV[i]] = tonumber(ARGV[i + 1]) end
-- From where each counts: its own from its position, that for all of them from where it is in doubt.
local since = { after, doubtful }
for i, reset in ipairs(resets) do
  if reset ~= '' and since[i] < select(2, split(reset)) then remembered = false end
end
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
-- and what was good for that is kept beside it.
local progress, saved = {}, cmsgpack.pack({})
for _, state in ipairs(session.progress and cmsgpack.unpack(session.progress) or {}) do
  if state.at == after then progress, saved = cmsgpack.unpack(state.rooms), state.rooms end
end

local boundary, listed = head, false
if session.away == '1' then
  local mark = redis.call('LINDEX', session.inbox, 0)
  if mark then
    boundary = tonumber(string.match(mark, '^%d+'))
    listed = true
  end
end

-- The room's running number at a position; nil where nobody can know it any more.
local function number_at(room, joined, position, first)
  local known = progress[room]
  if known and known[1] >= joined.join and known[1] <= position then return known[2] end
  if position <= joined.join then return joined.n end
  local before = redis.call('XREVRANGE', log_key(room), text(position), '-', 'COUNT', 1)[1]
  if before then return tonumber(before[2][2]) end
  if first and tonumber(first[2][4]) <= position then return first[2][2] - 1 end
  local parked = session.parked[room]
  if parked and parked.last <= position and session.mark and position <= tonumber(session.mark) then return parked.n end
  return nil
end

local gaps, behind, oldest, odd, now, how = {}, {}, {}, {}, microseconds(), 'whole'
for room, joined in pairs(session.rooms) do
  local from = math.max(after, joined.join)
  local meta = redis.call('HMGET', meta_key(room), 'n', 'last', 'base', 'odd')
  if meta[2] and tonumber(meta[2]) > from then
    local first = redis.call('XRANGE', log_key(room), '(' .. text(from), '+', 'COUNT', 1)[1]
    local n = number_at(room, joined, from, first)
    odd[room] = meta[4] and tonumber(meta[4]) > from
    -- Numbers from before the room was last forgotten say nothing about those after it.
    if n and n < tonumber(meta[3]) then n = tonumber(meta[3]) end
    local reached = first and first[2][2] - 1 or tonumber(meta[1])
    if n ~= reached then
      local known = progress[room]
      local start = math.max(from, known and known[3] or 0)
      local before = first and tonumber(string.match(first[1], '^%d+')) or head + 1
      local cut = tonumber(first and first[2][4] or meta[2])
      local reason = cut < now - tonumber(ARGV[6]) and 'expired' or 'overflow'
      gaps[#gaps + 1] = { room, reason, text(start), text(before),
        n and not odd[room] and text(reached - n) or '' }
      progress[room] = { from, reached, before - 1 }
    end
    -- A gap of this batch, or one told before that reaches behind the position.
    if progress[room] and progress[room][3] > from then how = 'part' end
    if first then behind[room], oldest[room] = from, first end
  end
end

-- What Redis itself forgot: told for the whole session, and for all of them where a node saw it. What it remembers
-- of a room from before is not lost.
-- A client that has seen more than there is gets told in any case, all others where an offset is missing: between where
-- they were before and what was forgotten, even if they have gone live since, as that may be noticed late.
for i, reset in ipairs(resets) do
  if reset ~= '' then
    local from, before = split(reset)
    local name = '\n' .. text(before)                             -- no room's name
    local spare = i - 1
    if since[i] < before - spare and not progress[name] then
      for room, joined in pairs(session.rooms) do
        local kept = redis.call('XREVRANGE', log_key(room), text(before - 1), '-', 'COUNT', 1)[1]
        local start = math.max(from, since[i], joined.join, kept and tonumber(string.match(kept[1], '^%d+')) or 0)
        if start < before - spare then
          gaps[#gaps + 1] = { room, 'reset', text(start), text(before), '' }
          how = 'part'
        end
      end
      progress[name] = { after, 0, 0 }
    end
  end
end

local messages, size, position, full, skipped = {}, 0, after, false, 0
local function hand_out(room, entry)
  local body = entry[2][8]
  local offset = string.match(entry[1], '^%d+')
  local known = progress[room]
  if odd[room] and not meant_for(session.client, entry, now) then
    how = 'part'
    skipped = skipped + 1
    if skipped > LOOKED then
      full = true
      return false
    end
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
local heap = {}
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

if after < boundary then
  for room, entry in pairs(oldest) do
    local offset = tonumber(string.match(entry[1], '^%d+'))
    if offset <= boundary then heap[#heap + 1] = { room = room, entries = { entry }, at = 1, offset = offset } end
  end
  for i = math.floor(#heap / 2), 1, -1 do sink(i) end
  while heap[1] do
    local cursor = heap[1]
    local entry = cursor.entries[cursor.at]
    if not hand_out(cursor.room, entry) then break end
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
      heap[1] = heap[#heap]
      heap[#heap] = nil
    end
    if heap[1] then sink(1) end
  end
end

-- Behind it: the list. What was handed out may leave it, down to the new boundary: the logs have it still.
if listed and not full then
  local handed, at = 0, 1
  while not full do
    local references = redis.call('LRANGE', session.inbox, at, at + 99)
    for _, reference in ipairs(references) do
      local colon = string.find(reference, ':', 1, true)
      local offset, room = string.sub(reference, 1, colon - 1), string.sub(reference, colon + 1)
      local from = behind[room]                                  -- nil: left meanwhile, or nothing there
      if from and tonumber(offset) > math.max(from, position) then
        local entry = redis.call('XRANGE', log_key(room), offset, offset, 'COUNT', 1)[1]
        if entry and not hand_out(room, entry) then break end
      end
      handed = handed + 1
    end
    at = at + #references
    if #references < 100 then break end
  end
  if full and handed > 0 then redis.call('LTRIM', session.inbox, handed, -1) end
end

redis.call('HDEL', key, 'progress')                              -- a removal first: passes when Redis is full
for _, gap in ipairs(gaps) do told = math.max(told, gap[4] - 1) end
if #gaps > 0 then redis.call('HSET', key, 'told', text(told)) end
if full then
  redis.call('HSET', key, 'progress', cmsgpack.pack({
    { at = position, rooms = cmsgpack.pack(progress) }, { at = after, rooms = saved } }))
  return { '', text(position), gaps, messages, how, text(now) }
end

go_live()
return { text(head), text(position), gaps, messages, how, text(now) }
