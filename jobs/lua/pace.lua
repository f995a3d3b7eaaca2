-- The rule of app/domain/pace.py over one number, shared by all workers.
-- KEYS[1]  when the next call is due, in microseconds of the clock of Redis
-- ARGV     now in microseconds for tests, or ''; interval; patience; 'take' or 'give_back'
-- -> granted 0|1, wait in microseconds
local interval, patience = tonumber(ARGV[2]), tonumber(ARGV[3])
local now
if ARGV[1] ~= '' then
  now = tonumber(ARGV[1])
else
  local time = redis.call('TIME')
  now = tonumber(time[1]) * 1000000 + tonumber(time[2])
end

local due = tonumber(redis.call('GET', KEYS[1]) or '0')
local wait = math.max(0, due - now)
if wait > patience + interval then
  wait = 0
end

local function keep(ahead)
  -- tostring() keeps 14 digits only. Kept a while longer than it says anything, for clocks that go otherwise.
  local life = math.ceil(ahead / 1000) + 10000
  redis.call('SET', KEYS[1], string.format('%.0f', now + ahead), 'PX', string.format('%.0f', life))
end

if ARGV[4] == 'give_back' then
  keep(math.max(0, wait - interval))
  return { 1, 0 }
end
if wait > patience then
  return { 0, wait - patience }
end
keep(wait + interval)
return { 1, wait }
