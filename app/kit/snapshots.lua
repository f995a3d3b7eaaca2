-- Keeps snapshots of one tenant and kind, and removes those that are too old, or the oldest of too many bytes.
-- KEYS: values by field, times of reading by field, times until which none may be kept.
-- ARGV: field of the latter, oldest time, seconds until all expire, most bytes; then field, time and value of each.
local void = tonumber(redis.call('HGET', KEYS[3], ARGV[1]) or '0')
local bytes = tonumber(redis.call('HGET', KEYS[1], 'bytes') or '0')
local function drop(field)
    bytes = bytes - redis.call('HSTRLEN', KEYS[1], field)
    redis.call('HDEL', KEYS[1], field)
    redis.call('ZREM', KEYS[2], field)
end
for i = 5, #ARGV, 3 do
    local field, at, value = ARGV[i], tonumber(ARGV[i + 1]), ARGV[i + 2]
    if at > void and at >= tonumber(redis.call('ZSCORE', KEYS[2], field) or '0') then
        drop(field)
        redis.call('HSET', KEYS[1], field, value)
        redis.call('ZADD', KEYS[2], at, field)
        bytes = bytes + #value
    end
end
for _, field in ipairs(redis.call('ZRANGEBYSCORE', KEYS[2], '-inf', ARGV[2])) do
    drop(field)
end
while bytes > tonumber(ARGV[4]) do
    local first = redis.call('ZRANGE', KEYS[2], 0, 0)[1]
    if not first then break end
    drop(first)
end
redis.call('HSET', KEYS[1], 'bytes', bytes)
redis.call('EXPIRE', KEYS[1], ARGV[3])
redis.call('EXPIRE', KEYS[2], ARGV[3])
