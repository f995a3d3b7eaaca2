-- A probe was called off: its permit goes back. ARGV[12…]: generation, token -> 1 if it held one, else 0
local generation, token = tonumber(ARGV[12]), tonumber(ARGV[13])
local record = read()
if generation ~= record.generation or not record.permits[token] then
  return { 0 }
end
record.permits[token] = nil
write(record)
return { 1 }
