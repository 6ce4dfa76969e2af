-- Publish messages. For each one: the next offset, an entry in its room's log, a reference in the inbox of each away
-- session of the room, a message on the bus.
--
-- KEYS  1 clock
-- ARGV  1 newest offset that the node has seen
--       2 log length         3 log age in microseconds                4 log age in milliseconds
--       5 milliseconds that meta outlives the last message            6 inbox length
--       7 life of an idempotency key in milliseconds                  8 prefix of a room's bus channel
--       9, ... five arguments for each message: 'v' volatile (offset and bus only), 'c' conditional (some sessions skip
--       it: echo off, or a ttl) or ''; room; header; body; idempotency key or ''
-- Answer: the offset of each message; after '=' if its idempotency key had been seen
--
-- Messages of one room that follow each other are a run: what is written once for all of them is written at its end.
-- References are pushed at the very end of the script, once into each inbox.

local call, format = redis.call, string.format
local base = string.sub(KEYS[1], 1, -6)

local t = call('TIME')
local now = t[1] * 1000000 + t[2]
local offset = math.max(now - 1, tonumber(call('GET', KEYS[1]) or '0'), tonumber(ARGV[1]))
-- By so many microseconds offsets are ahead of the time, because the server's clock has been set back.
local ahead = offset + 1 - now
local last_possible = format('%.0f', offset + (#ARGV - 8) / 5)
local clock_set = false
local answers = {}
-- The rooms that have away sessions, as a list and by name: {room, inboxes, references, n}. `references`: to all that is
-- written into these rooms.
local away, references

local i = 9
while i < #ARGV do
  local room = ARGV[i + 1]
  local prefix, channel = base .. 'room:' .. room, ARGV[8] .. room
  local log, meta = prefix .. ':log', prefix .. ':meta'
  -- The room's meta before the run; its newest number and offset; the number before the run; the run's last conditional
  -- message; whether the run made the log.
  local meta_before, n, last, n_before, conditional, log_made
  local missed

  while ARGV[i + 1] == room do
    local kind, header, body, key = ARGV[i], ARGV[i + 2], ARGV[i + 3], ARGV[i + 4]
    i = i + 5
    local seen = key ~= '' and call('GET', key)
    if seen then
      answers[#answers + 1] = '=' .. seen
    else
      if not clock_set then
        -- The first write, and the one that a full Redis refuses: what follows is never half done.
        call('SET', KEYS[1], last_possible)
        clock_set = true
      end
      offset = offset + 1
      local id, number = format('%.0f', offset), '0'
      if kind == 'c' and ahead > 0 then
        -- A ttl counts from the offset, so it is shorter by that, or even negative; but 0 would be none.
        local before, ttl, after = string.match(header, '^(%S+ %S+ %S+ %S+ )(%S+)(.*)')
        if ttl ~= '0' then
          local left = ttl - ahead
          header = before .. format('%.0f', left ~= 0 and left or -1) .. after
        end
      end
      if kind ~= 'v' then
        if not last then
          meta_before = call('HMGET', meta, 'n', 'last', 'renewed')
          missed = away and away[room]
          if not missed then
            local inboxes = call('SMEMBERS', prefix .. ':away')
            if inboxes[1] then
              away, references = away or {}, references or {}
              missed = { room = room, inboxes = inboxes, references = references }
              away[room], away[#away + 1] = missed, missed
            end
          end
          -- A room without meta is counted from the clock on, so that a number never comes twice.
          n_before = meta_before[1] or offset - 1
          n = n_before
        end
        n = n + 1
        number = format('%.0f', n)
        -- `p`, the room's offset before, tells of the oldest entry up to where the log was cut.
        local p = last or meta_before[2] or '0'
        if not call('XADD', log, 'NOMKSTREAM', 'MAXLEN', '=', ARGV[2], id,
          'n', number, 'p', p, 'k', header, 'm', body) then
          call('XADD', log, id, 'n', number, 'p', p, 'k', header, 'm', body)
          log_made = true
        end
        last = id
        if kind == 'c' then conditional = id end
        if missed then references[#references + 1] = id .. ':' .. room end
      end
      if key ~= '' then call('SET', key, id, 'PX', ARGV[7]) end
      call('PUBLISH', channel, id .. ' ' .. number .. ' ' .. header .. '\n' .. body)
      answers[#answers + 1] = id
    end
  end

  if last then
    call('HSET', meta, 'n', format('%.0f', n), 'last', last)
    if not meta_before[1] then call('HSET', meta, 'base', format('%.0f', n_before)) end
    if conditional then call('HSET', meta, 'odd', conditional) end
    -- Old entries are cut and expiries are renewed once in a thousandth of the log's age (86 s of 24 h), and the expiries
    -- are longer by that. A new log gets its expiry at once, because offsets may be ahead of the clock by which keys expire.
    local slack = ARGV[3] / 1000
    if log_made or not meta_before[3] or last - meta_before[3] >= slack then
      call('XTRIM', log, 'MINID', '=', format('%.0f', math.max(last - ARGV[3], 0)))
      call('HSET', meta, 'renewed', last)
      local slack_ms = math.ceil(slack / 1000)
      call('PEXPIRE', log, format('%.0f', ARGV[4] + slack_ms))
      call('PEXPIRE', meta, format('%.0f', ARGV[5] + slack_ms))  -- rule: floor_expiry
    end
    if missed then missed.n = n end
  end
end

if away then
  local groups = away
  if away[2] then
    -- Inboxes that are in the away sets of the same of these rooms get the same references.
    local inboxes, rooms_of = {}, {}
    for k, room in ipairs(away) do
      for _, inbox in ipairs(room.inboxes) do
        if not rooms_of[inbox] then inboxes[#inboxes + 1] = inbox end
        rooms_of[inbox] = (rooms_of[inbox] or '') .. k .. ' '
      end
    end
    groups = {}
    for _, inbox in ipairs(inboxes) do
      local rooms = rooms_of[inbox]
      local group = groups[rooms]
      if not group then
        local names = {}
        group = { inboxes = {}, references = {}, n = 0 }
        groups[rooms], groups[#groups + 1] = group, group
        for k in string.gmatch(rooms, '%d+') do
          local room = away[tonumber(k)]
          names[room.room], group.n = true, group.n + room.n
        end
        for _, reference in ipairs(references) do
          if names[string.match(reference, ':(.*)')] then group.references[#group.references + 1] = reference end
        end
      end
      group.inboxes[#group.inboxes + 1] = inbox
    end
  end

  local most = ARGV[6] + 1                                       -- references, and the boundary before them
  -- A full inbox is trimmed only now and then, by a chunk, and not every inbox by the same publish.
  local chunk = math.min(128, math.floor(most / 8))
  local least = most - chunk
  for _, group in ipairs(groups) do
    local inboxes, missed = group.inboxes, group.references
    local turn, many, first = group.n % math.max(chunk, 1), #missed, missed[1]
    for k = 1, #inboxes do
      local inbox = inboxes[k]
      local length = many == 1 and call('RPUSHX', inbox, first) or call('RPUSHX', inbox, unpack(missed))
      if length > least then
        if length > most or (turn - k) % chunk < many then
          call('LTRIM', inbox, -math.max(least, 1), -1)  -- rule: never_empty/1
        end
      elseif length == 0 then
        -- There is no such inbox: its session has ended.
        for _, room in ipairs(away) do call('SREM', base .. 'room:' .. room.room .. ':away', inbox) end
      end
    end
  end
end
return answers
