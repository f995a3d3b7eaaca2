-- One call ended, and says something to each of the circuits that it went through.
-- ARGV[12…], for each of KEYS: generation, token, verdict (ok, failed or void), took ms, jitter [0, 1)
-- -> for each of KEYS: before (state, or -1: nothing changed), after, opens, ms that it stays open
local told = {}

local function tell(before, record, hold)
  for _, number in ipairs({ before, STATE[record.state], record.opens, hold }) do
    told[#told + 1] = number
  end
end

local function open(key, record, jitter)
  local before = record.state
  local quiet = before == 'closed' and now - record.closed_at >= policy.open_cap
  record.opens = quiet and 1 or record.opens + 1
  local longest = math.min(policy.open_cap, policy.open * 2 ^ math.min(record.opens - 1, MOST_DOUBLINGS))
  local hold = math.max(1, math.floor(longest * (1 - JITTER * jitter)))
  begin_generation(record, 'open')
  record.opened_at = now
  record['until'] = now + hold
  write(key, record)
  tell(STATE[before], record, hold)
end

local function count(record, failed, slow)
  local index = math.floor(now / tenth)
  local slot = index % BUCKETS
  local bucket = record.buckets[slot] or { index = index, calls = 0, failures = 0, slow = 0 }
  bucket.calls = bucket.calls + 1
  bucket.failures = bucket.failures + (failed and 1 or 0)
  bucket.slow = bucket.slow + (slow and 1 or 0)
  record.buckets[slot] = bucket
end

local function too_bad(record)
  local calls, failures, slow = sums(record)
  if calls < policy.min_calls then
    return false
  end
  return (failures > 0 and failures >= policy.failure_rate * calls)
    or (slow > 0 and slow >= policy.slow_rate * calls)
end

local function report(key, generation, token, verdict, took, jitter)
  local record = read(key)
  local failed, slow = verdict == 'failed', took >= policy.slow_call
  if generation == record.generation then
    if verdict == 'void' then
      -- Called off: it says nothing about the other side, and a probe gives its permit back.
      if record.permits[token] then
        record.permits[token] = nil
        write(key, record)
      end
    elseif record.state == 'closed' then
      count(record, failed, slow)
      if too_bad(record) then
        return open(key, record, jitter)
      end
      write(key, record)
    elseif record.state == 'half_open' then
      if failed then
        return open(key, record, jitter)
      end
      if record.permits[token] then
        record.permits[token] = nil
        record.successes = record.successes + (slow and 0 or 1)
        if record.successes >= policy.successes then
          begin_generation(record, 'closed')
          record.closed_at = now
          write(key, record)
          return tell(STATE.half_open, record, 0)
        end
        write(key, record)
      end
    end
  end
  tell(-1, record, 0)
end

for position, key in ipairs(KEYS) do
  local first = 12 + 5 * (position - 1)
  report(
    key, tonumber(ARGV[first]), tonumber(ARGV[first + 1]), ARGV[first + 2], tonumber(ARGV[first + 3]),
    tonumber(ARGV[first + 4])
  )
end
return told
