-- The rule of rate_limiter.py over one number, shared by all workers.
-- KEYS[1]  when the next call is due, in microseconds of the clock of Redis
-- ARGV     now in microseconds for tests, or ''; interval; ahead; 'acquire' or 'cancel'
-- -> granted 0|1, wait in microseconds
local interval, ahead = tonumber(ARGV[2]), tonumber(ARGV[3])
local now
if ARGV[1] ~= '' then
  now = tonumber(ARGV[1])
else
  local time = redis.call('TIME')
  now = tonumber(time[1]) * 1000000 + tonumber(time[2])
end

local due = tonumber(redis.call('GET', KEYS[1]) or '0')
local wait = math.max(0, due - now)
if wait > ahead + interval then
  wait = 0
end

local function keep(distance)
  -- tostring() keeps 14 digits only. Kept a while longer than it says anything, for clocks that go otherwise.
  local life = math.ceil(distance / 1000) + 10000
  redis.call('SET', KEYS[1], string.format('%.0f', now + distance), 'PX', string.format('%.0f', life))
end

if ARGV[4] == 'cancel' then
  keep(math.max(0, wait - interval))
  return { 1, 0 }
end
if wait > ahead then
  return { 0, wait - ahead }
end
keep(wait + interval)
return { 1, wait }
