-- Nothing is left to be called: a half-open circuit closes if its last probes were well, however few there were. Without
-- more calls nobody would find out, and it holds nothing back that could overwhelm the other side.
-- -> before (state, or -1: nothing changed), after, opens, ms that it stays open
local record = read(KEYS[1])
if record.state ~= 'half_open' or record.successes == 0 or next(record.permits) then
  return { -1, STATE[record.state], record.opens, 0 }
end
begin_generation(record, 'closed')
record.closed_at = now
write(KEYS[1], record)
return { STATE.half_open, STATE.closed, record.opens, 0 }
