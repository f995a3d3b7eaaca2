-- A call ended, or several that say the same; what it says about each of the circuits that it passed.
-- A failed probe re-opens even after its permit expired, since it is still evidence; a late success closes nothing. A slow
-- probe that succeeded returns its permit and counts as nothing: the circuit stays half-open, and work trickles at the
-- probes' pace.
-- ARGV[FIRST…], for each of KEYS: generation, token, verdict (ok, failed or void), took ms, jitter [0, 1), tenant, calls:
-- so many that ended alike are reported together (1, unless they are no probes)
-- -> for each of KEYS: before (state, or -1: nothing changed), after, opens, ms that it stays open
local replies = {}

local function reply(before, record, duration)
  for _, number in ipairs({ before, STATE[record.state], record.opens, duration }) do
    replies[#replies + 1] = number
  end
end

local function open(key, record, jitter)
  local before = record.state
  local quiet = before == 'closed' and now - record.closed_at >= policy.open_cap
  record.opens = quiet and 1 or record.opens + 1
  local longest = math.min(policy.open_cap, policy.open * 2 ^ math.min(record.opens - 1, MOST_DOUBLINGS))
  local duration = math.max(1, math.floor(longest * (1 - JITTER * jitter)))
  begin_generation(record, 'open')
  record.opened_at = now
  record['until'] = now + duration
  write(key, record)
  reply(STATE[before], record, duration)
end

local function count(record, failed, slow, calls)
  local index = math.floor(now / tenth)
  local slot = index % BUCKETS
  local bucket = record.buckets[slot] or { index = index, calls = 0, failures = 0, slow = 0 }
  bucket.calls = bucket.calls + calls
  bucket.failures = bucket.failures + (failed and calls or 0)
  bucket.slow = bucket.slow + (slow and calls or 0)
  record.buckets[slot] = bucket
end

local function is_bad(calls, bad, rate)
  return calls >= policy.min_calls and bad > 0 and bad >= rate * calls
end

local function too_bad(record)
  local calls, failures, slow = sums(record)
  return is_bad(calls, failures, policy.failure_rate) or is_bad(calls, slow, policy.slow_rate)
end

-- Count a tenant's calls. Where all places are taken, a failure takes the place of a tenant without any.
local function note_tenant(record, tenant, failed, slow, calls)
  local known = record.witnesses[tenant]
  if not known then
    local count, well = 0, nil
    for other, witness in pairs(record.witnesses) do
      count = count + 1
      if witness.failures == 0 and witness.slow == 0 then
        well = math.min(well or other, other)
      end
    end
    if count >= MOST_WITNESSES then
      if not well or not (failed or slow) then
        return
      end
      record.witnesses[well] = nil
    end
    known = { since = now, calls = 0, failures = 0, slow = 0 }
    record.witnesses[tenant] = known
  end
  known.calls = known.calls + calls
  known.failures = known.failures + (failed and calls or 0)
  known.slow = known.slow + (slow and calls or 0)
end

-- Too bad, at a shared circuit: what the loudest tenant has more than the others together is left out, and a tenant
-- whose calls mostly succeed is no witness.
local function is_bad_for_all(record, calls, bad, what, rate)
  local witnesses, loudest, all = 0, 0, 0
  for _, witness in pairs(record.witnesses) do
    local own = witness[what]
    if own > 0 and own >= rate * witness.calls then
      witnesses = witnesses + 1
      loudest = math.max(loudest, own)
      all = all + own
    end
  end
  if witnesses < quorum then
    return false
  end
  local surplus = math.max(0, 2 * loudest - all)
  return is_bad(calls - surplus, bad - surplus, rate)
end

local function too_bad_for_all(record)
  local calls, failures, slow = sums(record)
  return is_bad_for_all(record, calls, failures, 'failures', policy.failure_rate)
    or is_bad_for_all(record, calls, slow, 'slow', policy.slow_rate)
end

-- A tenant's probe failed, which speaks for this tenant alone; whether enough of them did.
local function fail_probe(record, token, tenant)
  record.permits[token] = nil
  record.witnesses[tenant] = { since = now, calls = 1, failures = 1, slow = 0 }
  local count = 0
  for _ in pairs(record.witnesses) do
    count = count + 1
  end
  return count >= quorum
end

local function report(key, generation, token, verdict, took, jitter, tenant, calls)
  local record = read(key)
  local failed, slow = verdict == 'failed', took >= policy.slow_call
  if generation == record.generation then
    if verdict == 'void' then
      -- Canceled: it says nothing about the other side, and a probe returns its permit.
      if record.permits[token] then
        record.permits[token] = nil
        write(key, record)
      end
    elseif record.state == 'closed' then
      count(record, failed, slow, calls)
      local bad
      if tenant > 0 then
        note_tenant(record, tenant, failed, slow, calls)
        bad = too_bad_for_all(record)
      else
        bad = too_bad(record)
      end
      if bad then
        return open(key, record, jitter)
      end
      write(key, record)
    elseif record.state == 'half_open' then
      if failed then
        if tenant == 0 or fail_probe(record, token, tenant) then
          return open(key, record, jitter)
        end
        write(key, record)
      elseif record.permits[token] then
        record.permits[token] = nil
        record.successes = record.successes + (slow and 0 or 1)
        if record.successes >= policy.successes then
          begin_generation(record, 'closed')
          record.closed_at = now
          write(key, record)
          return reply(STATE.half_open, record, 0)
        end
        write(key, record)
      end
    end
  end
  reply(-1, record, 0)
end

for position, key in ipairs(KEYS) do
  local first = FIRST + 7 * (position - 1)
  report(
    key, tonumber(ARGV[first]), tonumber(ARGV[first + 1]), ARGV[first + 2], tonumber(ARGV[first + 3]),
    tonumber(ARGV[first + 4]), tonumber(ARGV[first + 5]), tonumber(ARGV[first + 6])
  )
end
return replies
