-- Permission for one call through all of these circuits; one that rejects leaves every other as it was.
-- Closed: yes. Open: not before its time. Half-open: as one of few probes; at a shared circuit a tenant has one probe at a
-- time, and waits for the first opening time after one that failed, so that the others find out whether they fare better.
-- ARGV[FIRST…], for each of KEYS: tenant
-- -> the position of the circuit that rejected, or 0; then of that one, or of each in the order of KEYS:
--    granted 0|1, state, generation, token (0: no probe), retry ms, opens, changed 0|1
local reply, changes = {}, {}

local function answer(record, granted, token, retry, changed)
  for _, number in ipairs({ granted, STATE[record.state], record.generation, token, retry, record.opens, changed }) do
    reply[#reply + 1] = number
  end
end

local function reject(position, record, retry)
  reply = { position }
  answer(record, 0, 0, retry, 0)
  return reply
end

-- Milliseconds until a half-open circuit may have room for this caller; 0: it has.
local function wait_of(record, tenant)
  local count, first, own = 0, nil, nil
  for _, probe in pairs(record.permits) do
    count = count + 1
    first = math.min(first or probe.expires, probe.expires)
    if tenant > 0 and probe.tenant == tenant then
      own = math.min(own or probe.expires, probe.expires)
    end
  end
  local held = own
  if count >= math.max(1, policy.probes) then
    held = first
  end
  local wait = held and math.min(HALF_OPEN_RETRY, held - now) or 0
  local witness = record.witnesses[tenant]
  if witness then
    wait = math.max(wait, witness.since + policy.open - now)
  end
  return wait
end

reply[1] = 0
for position, key in ipairs(KEYS) do
  local record = read(key)
  local changed = 0
  if record.state == 'open' then
    -- A clock that was set back to before the opening must not hold the circuit open for the difference.
    if record.opened_at <= now and now < record['until'] then
      return reject(position, record, record['until'] - now)
    end
    begin_generation(record, 'half_open')
    changed = 1
  end
  if record.state == 'closed' then
    answer(record, 1, 0, 0, 0)
  else
    local tenant = tonumber(ARGV[FIRST + position - 1])
    local wait = wait_of(record, tenant)
    if wait > 0 then
      return reject(position, record, wait)
    end
    record.issued = record.issued + 1
    record.permits[record.issued] = { expires = now + policy.permit, tenant = tenant }
    changes[#changes + 1] = { key, record }
    answer(record, 1, record.issued, 0, changed)
  end
end
for _, change in ipairs(changes) do
  write(change[1], change[2])
end
return reply
