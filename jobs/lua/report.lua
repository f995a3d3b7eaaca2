-- A call ended. ARGV[12…]: generation, token, failed 0|1, took ms, jitter [0, 1)
-- -> before (state, or -1: nothing changed), after, opens, ms that it stays open
local generation, token = tonumber(ARGV[12]), tonumber(ARGV[13])
local failed, took, jitter = ARGV[14] == '1', tonumber(ARGV[15]), tonumber(ARGV[16])
local record = read()

local function open()
  local before = record.state
  local quiet = before == 'closed' and now - record.closed_at >= policy.open_cap
  record.opens = quiet and 1 or record.opens + 1
  local longest = math.min(policy.open_cap, policy.open * 2 ^ math.min(record.opens - 1, MOST_DOUBLINGS))
  local hold = math.max(1, math.floor(longest * (1 - JITTER * jitter)))
  begin_generation(record, 'open')
  record.opened_at = now
  record['until'] = now + hold
  write(record)
  return { STATE[before], STATE.open, record.opens, hold }
end

local function close()
  begin_generation(record, 'closed')
  record.closed_at = now
  write(record)
  return { STATE.half_open, STATE.closed, record.opens, 0 }
end

local function count(slow)
  local index = math.floor(now / tenth)
  local slot = index % BUCKETS
  local bucket = record.buckets[slot] or { index = index, calls = 0, failures = 0, slow = 0 }
  bucket.calls = bucket.calls + 1
  bucket.failures = bucket.failures + (failed and 1 or 0)
  bucket.slow = bucket.slow + (slow and 1 or 0)
  record.buckets[slot] = bucket
end

local function too_bad()
  local calls, failures, slow = sums(record)
  if calls < policy.min_calls then
    return false
  end
  return (failures > 0 and failures >= policy.failure_rate * calls)
    or (slow > 0 and slow >= policy.slow_rate * calls)
end

local nothing = { -1, STATE[record.state], record.opens, 0 }
if generation ~= record.generation then
  return nothing
end
local slow = took >= policy.slow_call
if record.state == 'closed' then
  count(slow)
  if too_bad() then
    return open()
  end
  write(record)
elseif record.state == 'half_open' then
  if failed then
    return open()
  end
  if record.permits[token] then
    record.permits[token] = nil
    record.successes = record.successes + (slow and 0 or 1)
    if record.successes >= policy.successes then
      return close()
    end
    write(record)
  end
end
return nothing
