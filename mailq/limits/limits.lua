-- The operations of mailq.limits.operations on books that Redis keeps, one step each.
--
-- KEYS: two for each gate, in their order: the slots, a sorted set of tokens by the instant at which they are free
-- again; and the state, a hash with the window, what it says of a dead destination, and a field for each bucket.
-- ARGV: one packed string, since many are slow to send: the time, or -1 for the server's own, and seven numbers of the
-- operation; the operation; the session's token; news as JSON, or nothing; and the gates' numbers, see
-- mailq.limits.redis_packing.
--
-- The answer is a number, or JSON in one piece: a client reads many small answers slowly.
--
-- Instants are microseconds, and numbers are doubles as they are in memory: nothing is lost on the way, and text is
-- what would cost most. Functions stand where they are needed: making one costs as much as a look-up.

local FORGOTTEN_AFTER = 3600000000
local NOTED_EVERY = 60000000
local SLACK = 0.5
local NO_END = 1000000000
-- Expiry is put off once in so long at most, so that most operations need not.
local SPARE = 60000000
local RANKS = {lost = 3, dead = 2, full = 1, suspended = 0, rate = 0}
local STATES = {'ready', 'dead', 'suspended'}
local CODES = {ready = 1, dead = 2, suspended = 3}
local UNITS = {'messages', 'recipients', 'sessions'}

local call, request = redis.call, ARGV[1]
local pinned, span, want1, want2, want3, need1, need2, need3, operation, token, told, place =
  struct.unpack('>ddddddddBc0Hc0Ic0', request)
local now = pinned
if pinned < 0 then
  local time = call('TIME')
  now = time[1] * 1000000 + time[2]
end
local now_text = string.format('%.0f', now)

-- Windows: see mailq.limits.window.

local function initial(gate)
  local size = gate.moves and gate.initial or 1
  if gate.limit > 0 and size > gate.limit then size = gate.limit end
  return size
end

local function new_window(size, seen_at)
  return {size = size, success = 0, failure = 0, cohorts = 0, state = 'ready', seen_at = seen_at, ends_at = 0}
end

local function settled(window, gate, busy)
  if window.state ~= 'ready' then
    if now < window.ends_at then return window, false end
    if window.state == 'dead' then
      window = new_window(busy > 0 and busy or initial(gate), window.ends_at)
    else
      window.size, window.state, window.seen_at, window.ends_at = 1, 'ready', window.ends_at, 0
    end
  elseif now - window.seen_at < FORGOTTEN_AFTER and (gate.limit == 0 or window.size <= gate.limit) then
    return window, false
  end
  if now - window.seen_at >= FORGOTTEN_AFTER then
    window = new_window(initial(gate), now)
  elseif gate.limit > 0 then
    window.size = math.min(window.size, gate.limit)
  end
  return window, true
end

-- Books: see mailq.limits.books.

local function read(book)
  local gate, names = book.gate, {'expires_at', 'window'}
  for index, rate in ipairs(gate.rates) do names[index + 2] = rate.name end
  local found = call('HMGET', book.state, unpack(names))
  book.expires_at = tonumber(found[1] or 0)
  for index in ipairs(gate.rates) do
    book.buckets[index] = found[index + 2] and struct.unpack('>d', found[index + 2]) or 0
  end
  if not gate.windowed then return end
  if not found[2] then
    book.window = new_window(initial(gate), now)
    return
  end
  book.kept = true
  local size, success, failure, cohorts, code, seen_at, ends_at = struct.unpack('>ddddddd', found[2])
  local window = {size = size, success = success, failure = failure, cohorts = cohorts, state = STATES[code],
    seen_at = seen_at, ends_at = ends_at}
  local busy = 0
  if code == 2 then
    if ends_at <= now then
      -- Who was busy as the dead time ended counts.
      busy = call('ZCOUNT', book.slots, string.format('(%.0f', ends_at), '+inf')
    else
      local why = call('HMGET', book.state, 'status', 'reason')
      window.status, window.reason = why[1], why[2]
    end
  end
  book.window, book.changed = settled(window, gate, busy)
end

local books = {}
while place <= #request do
  local index = #books + 1
  local gate = {rates = {}}
  local windowed, moves, urgent, positive_by, negative_by, count
  gate.limit, gate.kept_free, urgent, windowed, moves, gate.rate_delay, gate.initial, gate.positive, positive_by,
    gate.negative, negative_by, gate.cohort_limit, gate.dead_time, count, place =
    struct.unpack('>dddddddddddddd', request, place)
  gate.windowed, gate.moves, gate.urgent = windowed == 1, moves == 1, urgent == 1
  gate.positive_by, gate.negative_by = positive_by == 1, negative_by == 1
  for number = 1, count do
    local unit, each, burst, name, after = struct.unpack('>dddBc0', request, place)
    gate.rates[number], place = {unit = UNITS[unit], each = each, burst = burst, name = name}, after
  end
  local book = {index = index, gate = gate, slots = KEYS[2 * index - 1], state = KEYS[2 * index], buckets = {},
    expires_at = 0}
  if gate.windowed or count > 0 then read(book) end
  if operation == 'admit' then
    call('ZREMRANGEBYSCORE', book.slots, '-inf', now_text)
    book.busy = call('ZCARD', book.slots)
  elseif operation ~= 'release' or told ~= '' then
    book.busy = call('ZCOUNT', book.slots, '(' .. now_text, '+inf')
  end
  books[index] = book
end

local function is_held(book)
  local ends_at = call('ZSCORE', book.slots, token)
  return ends_at and tonumber(ends_at) > now
end

-- Operations: see mailq.limits.operations.

local function note(heard)
  local changes = {}
  if told == '' then return changes end

  local function revived(gate, busy)
    return new_window(busy > 0 and busy or initial(gate), now)
  end

  local function positive(window, gate, busy)
    if window.state == 'dead' then return revived(gate, busy), true end
    if window.state ~= 'ready' then return window, false end
    local size, success, failure, cohorts = window.size, window.success, window.failure, window.cohorts
    if (gate.limit == 0 or window.size < gate.limit) and window.size < busy + initial(gate) then
      local step = gate.positive_by and gate.positive / window.size or gate.positive
      window.success = window.success + step
      while window.success + step / 2 >= 1 do
        window.size, window.success, window.failure = window.size + 1, window.success - 1, 0
      end
      if gate.limit > 0 then window.size = math.min(window.size, gate.limit) end
    end
    window.cohorts = 0
    if size == window.size and success == window.success and failure == window.failure and cohorts == 0 and
      now - window.seen_at < NOTED_EVERY then
      return window, false
    end
    window.seen_at = now
    return window, true
  end

  local function negative(window, gate, status, reason)
    window.cohorts, window.seen_at = window.cohorts + 1 / window.size, now
    if gate.cohort_limit > 0 and window.cohorts >= gate.cohort_limit then
      window.state, window.ends_at, window.status, window.reason = 'dead', now + gate.dead_time, status, reason
      return
    end
    local step = gate.negative_by and gate.negative / window.size or gate.negative
    window.failure = window.failure - step
    while window.failure - step / 2 < 0 do
      window.size, window.success, window.failure = window.size - 1, 0, window.failure + 1
    end
    window.size = math.max(window.size, 1)
  end

  local function move(book, verdict, status, reason)
    local gate, window = book.gate, book.window
    local was, before, cohorts_before = window.state, window.size, window.cohorts
    local was_dead = was == 'dead'
    if gate.moves then
      if verdict == 'positive' then
        local changed
        window, changed = positive(window, gate, book.busy)
        book.changed = changed or book.changed
      elseif window.state == 'ready' then
        negative(window, gate, status, reason)
        book.changed = true
      end
    end
    local cohorts, died = window.cohorts, window.state == 'dead' and not was_dead
    if gate.rate_delay > 0 then
      if window.state == 'dead' then window = revived(gate, book.busy) end
      if window.state == 'ready' then
        window.state, window.ends_at, window.seen_at = 'suspended', now + gate.rate_delay, now
        book.changed = true
      end
    end
    book.window = window
    if window.size == before and window.state == was and cohorts == cohorts_before then return nil end
    return {book.index, before, window.size, string.format('%.17g', cohorts), window.state, died and 1 or 0,
      was_dead and window.state ~= 'dead' and 1 or 0, died and status or '', died and reason or ''}
  end

  local news = cjson.decode(told)
  for _, book in ipairs(books) do
    if book.window and heard[book.index] then
      for _, one in ipairs(news) do changes[#changes + 1] = move(book, one[1], one[2], one[3]) end
    end
  end
  return changes
end

local result

if operation == 'release' then
  local heard = {}
  for _, book in ipairs(books) do heard[book.index] = told ~= '' and is_held(book) end
  result = note(heard)
  for _, book in ipairs(books) do
    call('ZREM', book.slots, token)
    if span == 1 and book.window and book.window.state == 'ready' then
      book.forgotten = call('ZCOUNT', book.slots, '(' .. now_text, '+inf') == 0
    end
  end
else
  local function hold(slots)
    call('ZADD', slots, string.format('%.0f', now + span), token)
    if pinned < 0 and call('PTTL', slots) < span / 1000 then
      -- Twice the time, so that a busy key is not put off at each step.
      call('PEXPIRE', slots, string.format('%.0f', math.ceil(span / 500)))
    end
  end

  local function most(book)
    local gate, window = book.gate, book.window
    local free = math.max(0, math.min(gate.kept_free, gate.limit - 1))
    local bound = NO_END
    if gate.limit > 0 then bound = gate.limit - (gate.urgent and 0 or free) end
    if window then bound = math.min(bound, window.size + (gate.urgent and free or 0)) end
    return bound
  end

  local function shut(book, bar, wait, rate)
    return {index = book.index, bar = bar, wait = wait and math.ceil(wait) or -1, busy = book.busy,
      size = book.window and book.window.size or -1, rate = rate or -1, window = book.window}
  end

  local function closed(book, others)
    local window = book.window
    if window and window.state == 'dead' then return shut(book, 'dead', window.ends_at - now) end
    if others >= most(book) then return shut(book, 'full') end
    if window and window.state == 'suspended' then return shut(book, 'suspended', window.ends_at - now) end
    return nil
  end

  local function dry(book, amounts)
    local longest, used_up = 0, nil
    for index, rate in ipairs(book.gate.rates) do
      local amount = amounts[rate.unit]
      if amount > 0 then
        local room = (rate.burst - math.min(amount, rate.burst)) * rate.each
        local wait = book.buckets[index] - now - room
        if wait > SLACK and wait > longest then longest, used_up = wait, index end
      end
    end
    return used_up and shut(book, 'rate', longest, used_up) or nil
  end

  local function at_once(book, unit)
    local least = NO_END
    for index, rate in ipairs(book.gate.rates) do
      if rate.unit == unit then
        local here = (now + rate.burst * rate.each + SLACK - math.max(book.buckets[index], now)) / rate.each
        least = math.min(least, math.max(0, math.floor(here)))
      end
    end
    return least
  end

  local function draw(book, amounts)
    for index, rate in ipairs(book.gate.rates) do
      local amount = amounts[rate.unit]
      if amount > 0 then
        book.drawn = book.drawn or {}
        book.drawn[index] = math.max(book.buckets[index], now) + amount * rate.each
      end
    end
  end

  local function tighter(one, other)
    if not one or not other then return one or other end
    local left, right = RANKS[one.bar], RANKS[other.bar]
    if left ~= right then return left > right and one or other end
    return math.max(other.wait, 0) > math.max(one.wait, 0) and other or one
  end

  local function answer(refused)
    local dead = refused.bar == 'dead' and refused.window or nil
    return {refused.index, refused.bar, string.format('%.0f', refused.wait), refused.busy, refused.size, refused.rate,
      dead and dead.status or '', dead and dead.reason or ''}
  end

  local want = {messages = want1, recipients = want2, sessions = want3}

  if operation == 'admit' then
    local refused
    for _, book in ipairs(books) do
      local bar = closed(book, book.busy)
      -- The same admission, sent again over a new connection, is not in its own way.
      if bar and bar.bar == 'full' and is_held(book) then bar = closed(book, book.busy - 1) end
      refused = tighter(refused, bar or dry(book, want))
    end
    if refused then
      result = answer(refused)
    else
      for _, book in ipairs(books) do
        hold(book.slots)
        draw(book, want)
      end
      result = 1
    end

  elseif operation == 'spend' or operation == 'note' then
    local heard = {}
    for _, book in ipairs(books) do heard[book.index] = is_held(book) end
    result = note(heard)
    if operation == 'spend' then
      local needed, refused = {messages = need1, recipients = need2, sessions = need3}, nil
      for _, book in ipairs(books) do
        local bar
        if heard[book.index] then bar = closed(book, book.busy - 1) else bar = shut(book, 'lost') end
        refused = tighter(refused, bar)
      end
      local granted, wait = {messages = 0, recipients = 0, sessions = 0}, 0
      if not refused then
        for _, book in ipairs(books) do refused = tighter(refused, dry(book, needed)) end
        if not refused then
          for _, unit in ipairs(UNITS) do
            local here = NO_END
            for _, book in ipairs(books) do here = math.min(here, at_once(book, unit)) end
            granted[unit] = math.max(needed[unit], math.min(want[unit], here))
          end
        elseif refused.wait <= span then
          granted, wait, refused = needed, refused.wait, nil
        end
      end
      for _, book in ipairs(books) do draw(book, granted) end
      result = {granted.messages, granted.recipients, granted.sessions, string.format('%.0f', wait),
        refused and answer(refused) or {}, result}
    end

  elseif operation == 'renew' then
    result = 0
    for _, book in ipairs(books) do
      if not is_held(book) then result = 1 end
      hold(book.slots)
    end

  elseif operation == 'room' then
    result = NO_END
    for _, book in ipairs(books) do
      local places = 0
      if not book.window or book.window.state == 'ready' then
        places = math.min(math.max(0, most(book) - book.busy), at_once(book, 'sessions'))
      end
      result = math.min(result, places)
    end

  elseif operation == 'look' then
    result = {}
    for index, book in ipairs(books) do
      local window = book.window or {size = -1, cohorts = 0, state = 'ready', ends_at = now}
      local buckets = {}
      for number, full_at in ipairs(book.buckets) do
        buckets[number] = string.format('%.17g', math.max(0, full_at - now))
      end
      local held = call('ZRANGEBYSCORE', book.slots, '(' .. now_text, '+inf', 'WITHSCORES')
      for number = 2, #held, 2 do held[number] = string.format('%.0f', held[number] - now) end
      result[index] = {window.size, string.format('%.17g', window.cohorts), window.state,
        string.format('%.0f', window.ends_at - now), window.status or '', window.reason or '', buckets, held}
    end

  elseif operation == 'revive' then
    result = 1
    for _, book in ipairs(books) do
      if book.window and book.window.state == 'dead' then
        book.window, book.changed = new_window(book.busy > 0 and book.busy or initial(book.gate), now), true
      end
    end
  end
end

-- What was changed is written down.

for _, book in ipairs(books) do
  if book.forgotten then
    -- What is left are buckets; a hash without any that is needed goes away at once.
    local needed_until = 0
    for _, full_at in pairs(book.buckets) do needed_until = math.max(needed_until, full_at) end
    if book.kept and needed_until > now then
      call('HDEL', book.state, 'window', 'status', 'reason')
    elseif book.kept then
      call('DEL', book.state)
    end
  elseif book.changed or book.drawn then
    local fields, needed_until = {}, 0
    for index, full_at in pairs(book.drawn or {}) do
      fields[#fields + 1] = book.gate.rates[index].name
      fields[#fields + 1] = struct.pack('>d', full_at)
      needed_until = math.max(needed_until, full_at)
    end
    local window = book.window
    if book.changed then
      fields[#fields + 1] = 'window'
      fields[#fields + 1] = struct.pack('>ddddddd', window.size, window.success, window.failure, window.cohorts,
        CODES[window.state], window.seen_at, window.ends_at)
      if window.state == 'dead' then
        fields[#fields + 1], fields[#fields + 2] = 'status', window.status
        fields[#fields + 1], fields[#fields + 2] = 'reason', window.reason
      end
      needed_until = math.max(needed_until, math.max(window.seen_at, window.ends_at) + FORGOTTEN_AFTER)
    end
    local expires = needed_until > book.expires_at and pinned < 0
    if expires then
      fields[#fields + 1], fields[#fields + 2] = 'expires_at', string.format('%.0f', needed_until + SPARE)
    end
    call('HSET', book.state, unpack(fields))
    if expires then call('PEXPIREAT', book.state, string.format('%.0f', (needed_until + SPARE) / 1000)) end
  end
end
if type(result) == 'table' then result = #result > 0 and cjson.encode(result) or 0 end
return result
