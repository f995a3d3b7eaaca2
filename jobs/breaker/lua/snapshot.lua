-- The circuit's present state -> state, retry ms, calls, failures, slow, opened_at ms, opens
local record = read(KEYS[1])
local retry = 0
if record.state == 'open' and record.opened_at <= now then
  retry = math.max(0, record['until'] - now)
end
local calls, failures, slow = sums(record)
return { STATE[record.state], retry, calls, failures, slow, record.opened_at, record.opens }
