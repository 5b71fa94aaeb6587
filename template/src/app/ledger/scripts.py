"""What Redis runs as one step each, in Lua.

Units go through as text wherever they are added, since a number of Lua is exact only up to 2⁵³;
they are numbers where they are compared. Every script may be run twice with the effect of once.
"""

_TAKE = """
local held, holds, expiries, expired = KEYS[1], KEYS[2], KEYS[3], KEYS[4]

local function add(account, units)
  if redis.call('HINCRBY', held, account, units) == 0 then
    redis.call('HDEL', held, account)
  end
end

local function take(id)
  local found = redis.call('HGET', holds, id)
  if not found then
    return false
  end
  local units, account = string.match(found, '^(%d+) (.*)$')
  if units ~= '0' then
    add('*', '-' .. units)
    add(account, '-' .. units)
  end
  redis.call('HDEL', holds, id)
  redis.call('ZREM', expiries, id)
  return true
end
"""

HOLD = (
    _TAKE
    + """
local day = KEYS[5]
local id, account, units, milliseconds, budget, account_budget = unpack(ARGV)
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)

local gone = redis.call('ZRANGEBYSCORE', expiries, '-inf', now, 'LIMIT', 0, 1000)
for _, old in ipairs(gone) do
  take(old)
  redis.call('ZADD', expired, now, old)
end
if #gone > 0 then
  redis.call('ZREMRANGEBYSCORE', expired, '-inf', now - 86400000)
end

if redis.call('HEXISTS', holds, id) == 1 then
  return {'held', ''}
end

local function left(limit, name)
  local spent = redis.call('HGET', day, name .. '/cost') or '0'
  local reserved = redis.call('HGET', held, name) or '0'
  return tonumber(limit) - tonumber(spent) - tonumber(reserved)
end

local remaining = left(budget, '*')
if tonumber(units) > remaining then
  return {'service', string.format('%.0f', remaining)}
end
if account_budget ~= '' then
  remaining = left(account_budget, account)
  if tonumber(units) > remaining then
    return {'account', string.format('%.0f', remaining)}
  end
end
redis.call('HSET', holds, id, units .. ' ' .. account)
redis.call('ZADD', expiries, now + tonumber(milliseconds), id)
if units ~= '0' then
  add('*', units)
  add(account, units)
end
return {'held', ''}
"""
)

RELEASE = (
    _TAKE
    + """
return take(ARGV[1]) and 1 or 0
"""
)

POST = (
    _TAKE
    + """
local totals, day, records, mark = KEYS[5], KEYS[6], KEYS[7], KEYS[8]
local id, record, unbacked, day_seconds, of_totals, of_day = unpack(ARGV)
local known = take(id)
if redis.call('ZREM', expired, id) == 1 then
  known = true
end
if unbacked == '1' then
  known = redis.call('SET', mark, '1', 'NX', 'EX', 86400)
end
if not known then
  return 0
end
for sums, added in pairs({[totals] = of_totals, [day] = of_day}) do
  for name, number in pairs(cjson.decode(added)) do
    redis.call('HINCRBY', sums, name, number)
  end
end
redis.call('EXPIRE', day, day_seconds)
redis.call('ZADD', records, 0, id .. record)
return 1
"""
)

# An edition that is already there is that of the same step, run before: it has been done.
ADD_KEY = """
local keys = KEYS[1]
local field, edition, name, entry = unpack(ARGV)
if redis.call('HGET', keys, field) == edition then
  return 1
end
if redis.call('HSETNX', keys, name, entry) == 0 then
  return 0
end
redis.call('HSET', keys, field, edition)
return 1
"""

REMOVE_KEY = """
local keys = KEYS[1]
local field, edition, name = unpack(ARGV)
if redis.call('HGET', keys, field) == edition then
  return 1
end
if redis.call('HDEL', keys, name) == 0 then
  return 0
end
redis.call('HSET', keys, field, edition)
return 1
"""

CLEAR = """
redis.call('DEL', KEYS[1])
redis.call('HSET', KEYS[1], unpack(ARGV))
return 1
"""
