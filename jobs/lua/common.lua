-- The rules of app/domain/breaker.py over hashes, one a circuit, shared by the scripts of the breaker, which are all
-- loaded with this text in front. Names follow the Python file; a differential test holds the two together.
--
-- KEYS     the circuits' hashes: nothing else is touched. A call goes through two circuits, and one script asks or tells
--          both: half the round trips, and a refusal need not be taken back from the other.
-- ARGV[1]  now in ms for tests, or '' for the clock of Redis, the one clock that all workers share
-- ARGV[2…] the policy, times in ms; the arguments of the script itself begin at ARGV[12]
--
-- TIME before a write needs the replication of effects, the default since Redis 5.

local BUCKETS = 10
local JITTER = 0.2
local HALF_OPEN_RETRY = 1000
local MOST_DOUBLINGS = 20
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

local function settle(record)
  local index = math.floor(now / tenth)
  for slot, bucket in pairs(record.buckets) do
    if bucket.index <= index - BUCKETS or bucket.index > index then
      record.buckets[slot] = nil
    end
  end
  for token, expires in pairs(record.permits) do
    if expires <= now or expires > now + policy.permit then
      record.permits[token] = nil
    end
  end
end

local function read(key)
  local record = {
    state = 'closed', generation = 0, opens = 0, opened_at = 0, ['until'] = 0,
    closed_at = 0, successes = 0, issued = 0, buckets = {}, permits = {},
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
      record.permits[tonumber(number)] = tonumber(value)
    elseif field == 'state' then
      record.state = value
    else
      record[field] = tonumber(value)
    end
  end
  settle(record)
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
  for token, expires in pairs(record.permits) do
    fields[#fields + 1] = 'permit:' .. digits(token)
    fields[#fields + 1] = digits(expires)
  end
  redis.call('DEL', key)
  redis.call('HSET', key, unpack(fields))
  redis.call('PEXPIRE', key, digits(lifetime(record)))
end

-- The earliest expiry of the permits under way, and how many there are.
local function under_way(record)
  local count, first = 0, nil
  for _, expires in pairs(record.permits) do
    count = count + 1
    if first == nil or expires < first then
      first = expires
    end
  end
  return count, first
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

local function begin_generation(record, state)
  record.state = state
  record.generation = math.max(record.generation + 1, now)
  record.successes = 0
  record.buckets = {}
  record.permits = {}
end
