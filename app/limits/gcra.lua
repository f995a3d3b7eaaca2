-- The rule of rules.py over several buckets at once, shared by all processes.
-- KEYS     a bucket each: "at micros part", as rules.Level
-- ARGV     now in microseconds for tests, or ''; tokens; mode as rules.Mode; rules.SHARE;
--          then of each bucket quota, window in microseconds
-- -> {now, tokens taken (or given back), then of each bucket micros, part}
local wanted, mode, share = tonumber(ARGV[2]), ARGV[3], tonumber(ARGV[4])
local now
if ARGV[1] ~= '' then
  now = tonumber(ARGV[1])
else
  local time = redis.call('TIME')
  now = tonumber(time[1]) * 1000000 + tonumber(time[2])
end

local function cost(tokens, bucket)
  local carried = math.floor(tokens * bucket.rest / bucket.quota)
  return tokens * bucket.whole + carried, tokens * bucket.rest - carried * bucket.quota
end

local function add(bucket, tokens)
  local micros, part = cost(math.abs(tokens), bucket)
  local sign = tokens > 0 and 1 or -1
  part = bucket.part + sign * part
  local carried = math.floor(part / bucket.quota)
  return bucket.micros + sign * micros + carried, part - carried * bucket.quota
end

local function free(bucket)
  -- The product is not exact in doubles: off by one at most, which is corrected.
  local tokens = math.floor((bucket.window - bucket.micros) * bucket.quota / bucket.window) + 1
  tokens = math.min(tokens, bucket.quota)
  while tokens > 0 do
    local micros, part = add(bucket, tokens)
    if micros < bucket.window or (micros == bucket.window and part == 0) then
      return tokens
    end
    tokens = tokens - 1
  end
  return 0
end

local buckets = {}
local taken = mode == 'refund' and -wanted or wanted
for i, key in ipairs(KEYS) do
  local bucket = { quota = tonumber(ARGV[3 + 2 * i]), window = tonumber(ARGV[4 + 2 * i]), micros = 0, part = 0 }
  bucket.whole = math.floor(bucket.window / bucket.quota)
  bucket.rest = bucket.window - bucket.whole * bucket.quota
  local at, micros, part = string.match(redis.call('GET', key) or '', '^(%d+) (%d+) (%d+)$')
  if at then
    local left = tonumber(micros) - math.max(0, now - tonumber(at))
    if left >= 0 then
      bucket.micros, bucket.part = left, tonumber(part)
    end
  end
  buckets[i] = bucket
  if mode == 'debt' then
    if free(bucket) < math.min(wanted, math.max(1, math.floor(bucket.quota / share))) then
      taken = 0
    end
  elseif mode ~= 'refund' then
    local tokens = free(bucket)
    if tokens < taken then
      taken = mode == 'whole' and 0 or tokens
    end
  end
end

local answer = { now, math.abs(taken) }
for i, key in ipairs(KEYS) do
  local bucket = buckets[i]
  if taken ~= 0 then
    local micros, part = add(bucket, taken)
    if micros < 0 then
      micros, part = 0, 0
    end
    bucket.micros, bucket.part = micros, part
    -- tostring() keeps 14 digits only. Kept a while longer than it says anything, for clocks that go otherwise.
    local life = math.ceil(micros / 1000) + 10000
    redis.call('SET', key, string.format('%.0f %.0f %.0f', now, micros, part), 'PX', string.format('%.0f', life))
  end
  answer[#answer + 1] = bucket.micros
  answer[#answer + 1] = bucket.part
end
return answer
