-- Hand out the next batch of what a session missed. If nothing is left, make the session live in the same step.
--
-- KEYS  1 clock
-- ARGV  1 client id   2 owner   3 after: the position up to which everything was handed out
--       4 messages at most   5 bytes at most   6 log age in microseconds
--       7 where the client was before Redis may have lost data, or `after`
--       8 cursor of the last batch that the node received; '': none, or it is of another connection or another Redis
--       9, 10, ... rooms of which the node has every message, and after which offset; and so on
-- Answer: 'gone', 'replaced', or {live-from offset or '', position, gaps, messages, source, microseconds now, cursor or ''}
--         a gap is {room, reason, after, before, dropped or ''}, to be reported before the messages;
--         a message is {room, offset, n, header, body};
--         source: 'cache': the session is live, and the node has all messages that it missed; 'logs': the messages are all
--         that came after the position and after the gaps; 'part': some were left out, as they are not for this client
--
-- The head of the inbox is the boundary: everything up to it is read from the logs, everything after it from the inbox; no
-- inbox: everything is read from the logs. A log is only ever cut at its beginning, so a room can lack messages only
-- between the position and the oldest entry after it. Its running numbers tell how many, once in each batch.
--
-- The script stores nothing about a replay that goes on. What later batches have to know is in the cursor, which the node
-- keeps together with the position. If an answer is lost, the node still has the cursor of the batch before.

local session, refusal = load_owned(ARGV[1], ARGV[2])
if not session then return refusal end
local key = session_key(session.client)
local after, most_messages, most_bytes = tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[5])
local reset_from = tonumber(ARGV[7])
local head = clock()

-- The first batch of a connection makes its owner the active one: the connection was there after its claim, and has
-- replaced all earlier ones for good.
if session.served ~= ARGV[2] then
  redis.call('HDEL', key, 'progress')                            -- a removal first: passes when Redis is full
  redis.call('HSET', key, 'served', ARGV[2])
end

-- away -> live, from exactly this value of the clock on.
local function go_live()
  if session.away == '1' then
    redis.call('HDEL', key, 'mark', 'parked', 'sets')
    redis.call('DEL', session.inbox)  -- rule: park_from_live/1
    for room in pairs(session.rooms) do redis.call('SREM', away_key(room), session.inbox) end
    redis.call('HSET', key, 'away', '0')
  end
  redis.call('PEXPIRE', key, text(owned_life(session)))  -- rule: ttl_connected
end

if not next(session.rooms) then
  go_live()
  return { text(head), ARGV[3], {}, {}, 'logs', text(microseconds()), '' }
end

-- What Redis is known to have lost: {from, before, since, spare}. `since`: where this session was. The loss that its own
-- client has shown counts from its position, one that a node has detected from where the session was before Redis changed.
-- `spare`: how many offsets may be missing without a report.
local resets = {}
local function add_resets(losses, since, spare)
  for loss in string.gmatch(losses or '', '%S+') do
    local from, before = split(loss)
    if since < before - spare then resets[#resets + 1] = { from, before, since, spare } end
  end
end
add_resets(session.reset, after, 0)
add_resets(redis.call('GET', base .. 'reset'), reset_from, 1)

-- If the node has everything that came after the position in each room, nothing is read. Unless a gap that was reported
-- reaches beyond the position: its messages must not come after all.
local gaps_reported_to = tonumber(session.told or '0')
local in_cache = #ARGV > 8
  and after >= gaps_reported_to  -- rule: told_is_lost
  and #resets == 0
local complete_from = {}
for i = 9, #ARGV, 2 do complete_from[ARGV[i]] = tonumber(ARGV[i + 1]) end
for room in pairs(session.rooms) do
  if not in_cache then break end
  local state = room_after(session, room, after)
  in_cache = not state or (complete_from[room] ~= nil and complete_from[room] <= state.from)
end
if in_cache then
  go_live()
  return { text(head), text(after), {}, {}, 'cache', text(microseconds()), '' }
end

-- The cursor: what earlier batches have counted and reported. `counted`, by room: {offset, running number there, gaps
-- reported up to, offset of the next entry}. The last is given only if that entry is a long one, with the next number: it
-- is read again only when it is its turn. `reported`: the ends of the losses of Redis that were reported.
local LONG_NAME = 24

-- Return a room's name in the cursor. A hash stands for a long name, so that a room takes 64 bytes of the cursor at most.
local function name_in_cursor(room)
  if #room <= LONG_NAME then return room end
  return '\n' .. string.sub(redis.sha1hex(room), 2, LONG_NAME)     -- no room has a line feed in its name
end

local counted, reported = {}, {}
local cursor = ARGV[8]  -- rule: lost_answer/1
if cursor ~= '' then
  local by_name
  by_name, reported = unpack(cmsgpack.unpack(cursor))
  for room in pairs(session.rooms) do
    local known = by_name[name_in_cursor(room)]
    if known
      and known[1] >= joined(session, room)  -- rule: count_from_join
    then
      counted[room] = known
    end
  end
end

local function next_cursor()
  local by_name = {}
  for room, known in pairs(counted) do by_name[name_in_cursor(room)] = known end
  return cmsgpack.pack({ by_name, reported })
end

local boundary, has_inbox = head, false  -- rule: never_empty/2
if session.away == '1' then
  local first = redis.call('LINDEX', session.inbox, 0)
  if first then
    boundary = tonumber(string.match(first, '^%d+'))  -- rule: log_decides
    has_inbox = true
  end
end

-- Return a room's running number at a position; nil: nobody can know it any more. `n`, `p`: of the first entry after it.
local function number_at(room, position, n, p)
  if counted[room] then return counted[room][2] end
  local join, n_at_join = joined(session, room)
  if position <= join then return n_at_join end
  if p and p <= position then return n - 1 end
  local before = redis.call('XREVRANGE', log_key(room), text(position), '-', 'COUNT', 1)[1]
  if before then return tonumber(before[2][2]) end
  local parked = room_at_park(session, room)
  if parked and parked.last <= position and position <= tonumber(session.mark) then return parked.n end
  return nil
end

-- Find the first entry of a room after the position, and add the gap before it, if there is one. Return a reader that
-- begins with that entry; its `entries` are nil if only the entry's offset is known.
local gaps, read_after, conditional, now, source, peeked = {}, {}, {}, microseconds(), 'logs', 0
local function find_first(room)
  local state = room_after(session, room, after)
  if not state then return nil end
  local from = state.from
  conditional[room] = state.conditional
  local known = counted[room]
  if known and known[4] then
    read_after[room] = from
    return { room = room, at = 1, offset = known[4] }
  end
  local entry = redis.call('XRANGE', log_key(room), '(' .. text(from), '+', 'COUNT', 1)[1]
  local first, number, p
  if entry then
    first, number, p = tonumber(entry_offset(entry)), tonumber(entry[2][2]), tonumber(entry[2][4])
  end
  local n = number_at(room, from, number, p)
  -- If the room was forgotten in between, the count began anew: numbers from before say nothing about those after.
  if n and n < state.base then n = state.base end
  local n_before = first and number - 1 or state.n
  local reported_to = known and known[3] or 0
  if n ~= n_before then  -- rule: heal_gap, final_gap
    local start = math.max(from, reported_to)
    local before = first or head + 1
    local cut_up_to = p or state.last
    local reason = cut_up_to < now - tonumber(ARGV[6]) and 'expired' or 'overflow'
    local dropped = n and not conditional[room] and text(n_before - n) or ''  -- rule: n_gap
    gaps[#gaps + 1] = { room, reason, text(start), text(before), dropped }
    reported_to = before - 1
    counted[room] = { from, n_before, reported_to }
  end
  if not first then return nil end
  local size = #entry[2][8]
  if size > LONG_BODY then
    counted[room], peeked = { from, n_before, reported_to, first }, peeked + size
  end
  read_after[room] = from
  return { room = room, entries = { entry }, at = 1, offset = first }
end

local function store_gaps_reported_to()
  if #gaps == 0 then return end
  for _, gap in ipairs(gaps) do gaps_reported_to = math.max(gaps_reported_to, gap[4] - 1) end
  redis.call('HDEL', key, 'progress')                            -- a removal first: passes when Redis is full
  redis.call('HSET', key, 'told', text(gaps_reported_to))
end

-- Return a batch after which more is left.
local function batch(position, messages)
  store_gaps_reported_to()
  local following = next_cursor()  -- rule: lost_answer/2
  return { '', text(position), gaps, messages, source, text(now), following }
end

local heap = {}
for room in pairs(session.rooms) do
  heap[#heap + 1] = find_first(room)
  if peeked > MOST_PEEKED then
    -- Too much for one run: no message is handed out, and the node asks for the next batch from the same position.
    source = 'part'
    return batch(after, {})
  end
end

-- Gaps of what Redis itself has lost, from the oldest loss to the newest. A loss that the client has shown is reported in
-- every room; a loss that a node has detected only where an offset can be missing, between where the session was and the
-- end of the loss. It is reported even if the session has gone live since, because a loss may be detected late. Entries
-- that a log still has from before the loss are not lost.
for i = #resets, 1, -1 do
  local from, before, since, spare = unpack(resets[i])
  if not reported[text(before)] then
    for room in pairs(session.rooms) do
      local join = joined(session, room)
      local kept = redis.call('XREVRANGE', log_key(room), text(before - 1), '-', 'COUNT', 1)[1]
      local start = math.max(from, since, join, kept and tonumber(entry_offset(kept)) or 0)
      if start < before - spare then
        gaps[#gaps + 1] = { room, 'reset', text(start), text(before), '' }
        source = 'part'
      end
    end
    reported[text(before)] = true
  end
end

-- Add an entry to the batch, or pass over it if it is not for this client. False: the batch is full.
local messages, bytes, position, full, passed_over = {}, 0, after, false, 0
local function hand_out(room, entry)
  local body = entry[2][8]
  local offset = entry_offset(entry)
  local known = counted[room]
  if conditional[room] and not meant_for(session.client, entry, now) then  -- rule: echo_in_log
    source = 'part'
    if passed_over >= MOST_PASSED_OVER then
      full = true
      return false
    end
    passed_over = passed_over + cost(body)
  elseif #messages == most_messages or (bytes + #body > most_bytes and #messages > 0) then
    full = true
    return false
  else
    bytes = bytes + #body
    messages[#messages + 1] = { room, offset, entry[2][2], entry[2][6], body }
  end
  position = tonumber(offset)
  counted[room] = { position, tonumber(entry[2][2]), known and known[3] or 0 }
  return true
end

-- Up to the boundary: the logs, merged by offset. There is a reader for each room, in a heap with the smallest offset on
-- top. A reader begins with the entry that is known, and reads more in chunks that grow: rooms can be many, and entries long.
local function sink(i)
  local reader = heap[i]
  while true do
    local child = 2 * i
    if heap[child + 1] and heap[child + 1].offset < heap[child].offset then child = child + 1 end
    if not heap[child] or heap[child].offset >= reader.offset then break end
    heap[i], i = heap[child], child
  end
  heap[i] = reader
end

for i = math.floor(#heap / 2), 1, -1 do sink(i) end
while heap[1] and heap[1].offset <= boundary do
  local reader = heap[1]
  local entry = reader.entries and reader.entries[reader.at]
  if not entry then
    -- Known from an earlier batch, and its turn has come. If it was cut since, that is a gap.
    counted[reader.room][4] = nil
    reader = find_first(reader.room)
  elseif not hand_out(reader.room, entry) then
    break
  else
    if not reader.entries[reader.at + 1] then
      local count = math.min(2 * #reader.entries, 20)
      reader.entries = redis.call('XRANGE', log_key(reader.room), '(' .. entry[1], text(boundary), 'COUNT', count)
      reader.at = 0
    end
    reader.at = reader.at + 1
    local following = reader.entries[reader.at]
    if following then
      reader.offset = tonumber(entry_offset(following))
    else
      reader = nil
    end
  end
  heap[1] = reader or heap[#heap]
  if not reader then heap[#heap] = nil end
  if heap[1] then sink(1) end
end

-- After it: the inbox. References that were handed out leave it, and the last of them is the new boundary: the logs still
-- have the messages.
if has_inbox and not full then
  local handed_out, at = 0, 1
  while not full do
    local references = redis.call('LRANGE', session.inbox, at, at + 99)
    for _, reference in ipairs(references) do
      local colon = string.find(reference, ':', 1, true)
      local offset, room = string.sub(reference, 1, colon - 1), string.sub(reference, colon + 1)
      -- Nil: the room was left meanwhile, or has nothing after the position.
      local from = read_after[room]  -- rule: gen_in_key/2, replay_filters/1
      if from and tonumber(offset) > math.max(from, position) then
        local entry = redis.call('XRANGE', log_key(room), offset, offset, 'COUNT', 1)[1]
        if not entry and counted[room] and counted[room][4] then
          counted[room][4] = nil
          find_first(room)                                       -- it was cut since an earlier batch has seen it
        end
        if entry and not hand_out(room, entry) then break end
      end
      handed_out = handed_out + 1
    end
    at = at + #references
    if #references < 100 then break end
  end
  if full and handed_out > 0 then redis.call('LTRIM', session.inbox, handed_out, -1) end
end

if full then return batch(position, messages) end

store_gaps_reported_to()
go_live()
return { text(head), text(position), gaps, messages, source, text(now), '' }
