-- The rules of the circuit breaker over hashes, one a circuit, shared by the scripts, which are all loaded with this text
-- in front. Times are whole milliseconds. Sources: Nygard, "Release It!", and the rates and minimum of calls of
-- resilience4j.
--
-- A circuit counts calls in a sliding window of sub-buckets and opens on the *rate* of failed or slow ones. Each change of
-- state starts a new generation; reports of calls of an older one are ignored.
--
-- A circuit may be shared by tenants: then each call names its tenant, and no tenant alone can open it, or keep it from
-- closing. It opens on failures of `quorum` tenants, the loudest of whom counts for no more than the others together.
-- `witnesses` are the tenants known by name; further ones are in the sums alone, so that the hash stays small.
--
-- KEYS     the circuits' hashes: nothing else is touched. A call passes two circuits, and one script serves both: half the
--          round trips, and nothing has to be returned to one when the other rejects.
-- ARGV[1]  now in ms for tests, or '' for the clock of Redis, the one clock that all workers share
-- ARGV[2…] the policy, times in ms, and the quorum; the arguments of the script itself begin at ARGV[FIRST]
--
-- A `tenant` from 1 is the caller at a circuit that tenants share; 0: the circuit belongs to one tenant.
--
-- TIME before a write needs the replication of effects, the default since Redis 5.

local BUCKETS = 10
local JITTER = 0.2 -- share of an opening time that is random, taken off it: the cap stays a cap
local HALF_OPEN_RETRY = 1000 -- to ask again while all probes are under way: most end long before their permits expire
local MOST_DOUBLINGS = 20 -- keeps every product exact in doubles
local MOST_WITNESSES = 8
local FIRST = 13
local STATE = { closed = 0, open = 1, half_open = 2 } -- replies are integers: no question of decoding

local policy = {
  window = tonumber(ARGV[2]),
  min_calls = tonumber(ARGV[3]),
  failure_rate = tonumber(ARGV[4]),
  slow_rate = tonumber(ARGV[5]),
  slow_call = tonumber(ARGV[6]),
  open = tonumber(ARGV[7]),
  open_cap = tonumber(ARGV[8]),
  probes = tonumber(ARGV[9]),
  successes = tonumber(ARGV[10]),
  permit = tonumber(ARGV[11]),
}
local quorum = tonumber(ARGV[12])
local tenth = math.max(1, math.floor(policy.window / BUCKETS))

local now
if ARGV[1] ~= '' then
  now = tonumber(ARGV[1])
else
  local time = redis.call('TIME')
  now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
end

-- tostring() keeps 14 digits only; every number stored here is whole.
local function digits(number)
  return string.format('%.0f', number)
end

-- Drop what time has ended: old buckets and expired permits, also those of a clock that was set back.
local function expire(record)
  local index = math.floor(now / tenth)
  for slot, bucket in pairs(record.buckets) do
    if bucket.index <= index - BUCKETS or bucket.index > index then
      record.buckets[slot] = nil
    end
  end
  for token, probe in pairs(record.permits) do
    if probe.expires <= now or probe.expires > now + policy.permit then
      record.permits[token] = nil
    end
  end
  for tenant, witness in pairs(record.witnesses) do
    if witness.since <= now - policy.window or witness.since > now then
      record.witnesses[tenant] = nil
    end
  end
end

local function read(key)
  local record = {
    state = 'closed', generation = 0, opens = 0, opened_at = 0, ['until'] = 0,
    closed_at = 0, successes = 0, issued = 0, buckets = {}, permits = {}, witnesses = {},
  }
  local stored = redis.call('HGETALL', key)
  for position = 1, #stored, 2 do
    local field, value = stored[position], stored[position + 1]
    local kind, number = string.match(field, '^(%a+):(%d+)$')
    if kind == 'bucket' then
      local index, calls, failures, slow = string.match(value, '^(%d+):(%d+):(%d+):(%d+)$')
      record.buckets[tonumber(number)] = {
        index = tonumber(index), calls = tonumber(calls), failures = tonumber(failures), slow = tonumber(slow),
      }
    elseif kind == 'permit' then
      local expires, tenant = string.match(value, '^(%d+):(%d+)$')
      record.permits[tonumber(number)] = { expires = tonumber(expires), tenant = tonumber(tenant) }
    elseif kind == 'witness' then
      local since, calls, failures, slow = string.match(value, '^(%d+):(%d+):(%d+):(%d+)$')
      record.witnesses[tonumber(number)] = {
        since = tonumber(since), calls = tonumber(calls), failures = tonumber(failures), slow = tonumber(slow),
      }
    elseif field == 'state' then
      record.state = value
    else
      record[field] = tonumber(value)
    end
  end
  expire(record)
  return record
end

local function lifetime(record)
  local quiet = 2 * math.max(policy.window, policy.open_cap, policy.permit)
  if record.state == 'open' then
    return quiet + math.max(0, record['until'] - now)
  end
  return quiet
end

local function write(key, record)
  local fields = {
    'state', record.state,
    'generation', digits(record.generation),
    'opens', digits(record.opens),
    'opened_at', digits(record.opened_at),
    'until', digits(record['until']),
    'closed_at', digits(record.closed_at),
    'successes', digits(record.successes),
    'issued', digits(record.issued),
  }
  for slot, bucket in pairs(record.buckets) do
    fields[#fields + 1] = 'bucket:' .. digits(slot)
    fields[#fields + 1] = digits(bucket.index) .. ':' .. digits(bucket.calls) .. ':'
      .. digits(bucket.failures) .. ':' .. digits(bucket.slow)
  end
  for token, probe in pairs(record.permits) do
    fields[#fields + 1] = 'permit:' .. digits(token)
    fields[#fields + 1] = digits(probe.expires) .. ':' .. digits(probe.tenant)
  end
  for tenant, witness in pairs(record.witnesses) do
    fields[#fields + 1] = 'witness:' .. digits(tenant)
    fields[#fields + 1] = digits(witness.since) .. ':' .. digits(witness.calls) .. ':'
      .. digits(witness.failures) .. ':' .. digits(witness.slow)
  end
  redis.call('DEL', key)
  redis.call('HSET', key, unpack(fields))
  redis.call('PEXPIRE', key, digits(lifetime(record)))
end

local function sums(record)
  local calls, failures, slow = 0, 0, 0
  for _, bucket in pairs(record.buckets) do
    calls = calls + bucket.calls
    failures = failures + bucket.failures
    slow = slow + bucket.slow
  end
  return calls, failures, slow
end

-- Never below the time of the change: a permit from before the memory was lost cannot meet its own number again.
local function begin_generation(record, state)
  record.state = state
  record.generation = math.max(record.generation + 1, now)
  record.successes = 0
  record.buckets = {}
  record.permits = {}
  record.witnesses = {}
end
