-- Set the state. ARGV[FIRST…]: state, ms that an open circuit stays open
-- -> before (state, or -1: nothing changed), after, opens, ms that it stays open
local state, duration = ARGV[FIRST], tonumber(ARGV[FIRST + 1])
local record = read(KEYS[1])
local before = record.state
begin_generation(record, state)
if state == 'closed' then
  record.opens = 0
  record.closed_at = now
else
  record.opens = math.max(1, record.opens)
end
if state == 'open' then
  record.opened_at = now
  record['until'] = now + duration
else
  duration = 0
end
write(KEYS[1], record)
return { before ~= state and STATE[before] or -1, STATE[state], record.opens, duration }
