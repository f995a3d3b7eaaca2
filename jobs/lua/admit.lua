-- May a call go out? -> granted 0|1, state, generation, token (0: no probe), retry ms, opens, changed 0|1
local record = read()

local function refuse(retry)
  return { 0, STATE[record.state], record.generation, 0, retry, record.opens, 0 }
end

local changed = 0
if record.state == 'open' then
  -- A clock that was set back to before the opening must not hold the circuit open for the difference.
  if record.opened_at <= now and now < record['until'] then
    return refuse(record['until'] - now)
  end
  begin_generation(record, 'half_open')
  changed = 1
end
if record.state == 'closed' then
  return { 1, STATE.closed, record.generation, 0, 0, record.opens, 0 }
end
local count, first = under_way(record)
if count >= math.max(1, policy.probes) then
  return refuse(math.min(HALF_OPEN_RETRY, first - now))
end
record.issued = record.issued + 1
record.permits[record.issued] = now + policy.permit
write(record)
return { 1, STATE.half_open, record.generation, record.issued, 0, record.opens, changed }
