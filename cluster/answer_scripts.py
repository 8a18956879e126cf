"""The Lua that Redis runs for answers: one gateway drives each, and a turn fences off those before.

A turn is to a driver what an epoch is to an owner: it grows whenever another gateway takes the
answer over, whoever comes with a lower one is refused, and one with a higher one is believed, for
Redis may have been restarted without its data.
"""

from easel.cluster.journal_scripts import CLOCK, Script

# KEYS of all but those of the index: answer. ARGV of those that a driver writes: gateway, turn, driver
# lease in ms, time to live in ms, record, fingerprint, then their own.
_COMMON = (
    CLOCK
    + """
local status = redis.call('HGET', KEYS[1], 'status') or 'in_progress'
local driver = redis.call('HGET', KEYS[1], 'driver') or ''
local turn = tonumber(redis.call('HGET', KEYS[1], 'turn') or '0')
local function keep(...)
  redis.call('HSETNX', KEYS[1], 'record', ARGV[5])
  redis.call('HSETNX', KEYS[1], 'fingerprint', ARGV[6])
  redis.call('HSET', KEYS[1], ...)
  redis.call('PEXPIRE', KEYS[1], ARGV[4])
end
"""
)

# ARGV[2] is not read. Returns the turn, or 0 when somebody else drives it, it has ended, or it answers
# another body. Claiming what one drives already changes nothing.
CLAIM = Script(
    _COMMON
    + """
if status ~= 'in_progress' then return 0 end
if (redis.call('HGET', KEYS[1], 'fingerprint') or ARGV[6]) ~= ARGV[6] then return 0 end
local mine = driver == ARGV[1]
if not mine and driver ~= '' and alive(redis.call('HGET', KEYS[1], 'until'), ARGV[3]) then return 0 end
if not mine then turn = turn + 1 end
keep('status', status, 'driver', ARGV[1], 'turn', turn, 'until', ahead(ARGV[3]))
return turn
"""
)

_FENCE = (
    _COMMON
    + """
if status ~= 'in_progress' or tonumber(ARGV[2]) < turn then return 0 end
if tonumber(ARGV[2]) == turn and driver ~= '' and driver ~= ARGV[1] then return 0 end
"""
)

# Returns 0 when it is lost, or has ended.
RENEW = Script(
    _FENCE
    + """
keep('status', status, 'driver', ARGV[1], 'turn', ARGV[2], 'until', ahead(ARGV[3]))
return 1
"""
)

RELEASE = Script(
    _FENCE
    + """
keep('status', status, 'driver', '', 'turn', ARGV[2], 'until', 0)
return 1
"""
)

# ARGV[7]: status, [8]: detail. The first end it comes to stays.
CONCLUDE = Script(
    _FENCE
    + """
keep('status', ARGV[7], 'detail', ARGV[8], 'driver', '', 'turn', ARGV[2], 'until', 0)
return 1
"""
)

# ARGV: time to live in ms. Returns 0 when it has ended, or is not known.
CANCEL = Script("""
if redis.call('HGET', KEYS[1], 'status') ~= 'in_progress' then return 0 end
redis.call('HSET', KEYS[1], 'status', 'cancelled')
redis.call('PEXPIRE', KEYS[1], ARGV[1])
return 1
""")

# ARGV: driver lease in ms. Returns the hash, and whether the driver's lease lives.
READ = Script(
    CLOCK
    + """
local live = alive(redis.call('HGET', KEYS[1], 'until'), ARGV[1])
return {redis.call('HGETALL', KEYS[1]), live and 1 or 0}
"""
)

# ARGV: driver lease in ms. Returns 1: unfinished and nobody's, 0: driven, -1: ended or gone.
ORPHANED = Script(
    CLOCK
    + """
if redis.call('HGET', KEYS[1], 'status') ~= 'in_progress' then return -1 end
if redis.call('HGET', KEYS[1], 'driver') == '' then return 1 end
return alive(redis.call('HGET', KEYS[1], 'until'), ARGV[1]) and 0 or 1
"""
)

# KEYS of the rest: index. ARGV: answer, time to live in ms.
INDEX = Script(
    CLOCK
    + """
redis.call('ZADD', KEYS[1], ahead(0), ARGV[1])
redis.call('PEXPIRE', KEYS[1], ARGV[2])
return 1
"""
)

# Nobody drives it from now on.
INDEX_FREED = Script("""
redis.call('ZADD', KEYS[1], 0, ARGV[1])
redis.call('PEXPIRE', KEYS[1], ARGV[2])
return 1
""")

# ARGV: answers.
UNINDEX = Script("return redis.call('ZREM', KEYS[1], unpack(ARGV))")

# ARGV: driver lease in ms, most answers. Those not renewed for longer, or in a future that the clock
# has come back from.
SILENT = Script(
    CLOCK
    + """
local found = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', ahead(-ARGV[1]), 'LIMIT', 0, ARGV[2])
for _, id in ipairs(redis.call('ZRANGEBYSCORE', KEYS[1], ahead(ARGV[1]), '+inf', 'LIMIT', 0, ARGV[2])) do
  found[#found + 1] = id
end
return found
"""
)
