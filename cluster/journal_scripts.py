"""The Lua that Redis runs. Every write that claims ownership checks the fencing epoch first.

An epoch below the lease's is refused; one above it is adopted, because it was granted while
Redis was away. All keys of one script belong to one request and share a hash tag.
"""

# KEYS: lease. ARGV: owner, time to live in ms, floor. Returns the new epoch.
ACQUIRE = """
local held = tonumber(redis.call('HGET', KEYS[1], 'epoch') or '0')
local epoch = math.max(held, tonumber(ARGV[3])) + 1
local text = string.format('%.0f', epoch)
redis.call('HSET', KEYS[1], 'owner', ARGV[1], 'epoch', text)
redis.call('PEXPIRE', KEYS[1], ARGV[2])
return text
"""

# KEYS: request. ARGV: request, time to live in ms. The end may already be there: another process writes it.
ADMIT = """
redis.call('HSET', KEYS[1], 'request', ARGV[1])
if redis.call('HEXISTS', KEYS[1], 'finish') == 0 then redis.call('PEXPIRE', KEYS[1], ARGV[2]) end
return 1
"""

_FENCE = """
local held = tonumber(redis.call('HGET', KEYS[1], 'epoch') or '0')
if tonumber(ARGV[1]) < held then return 0 end
redis.call('HSET', KEYS[1], 'epoch', ARGV[1])
redis.call('PEXPIRE', KEYS[1], ARGV[2])
"""

# KEYS: lease. ARGV: epoch, lease time to live in ms. Returns 0 when stale.
RENEW = _FENCE + "return 1"

# KEYS: lease, blocks. ARGV: epoch, lease time to live in ms, block index, block, time to live in ms.
# A block that is already there stays as it is. Returns 0 when stale.
APPEND = (
    _FENCE
    + """
redis.call('HSETNX', KEYS[2], ARGV[3], ARGV[4])
redis.call('PEXPIRE', KEYS[2], ARGV[5])
return 1
"""
)

# KEYS: lease, blocks, request. ARGV: epoch, time to live of all in ms, finish reason. Returns 0 when stale.
FINISH = (
    _FENCE
    + """
redis.call('HSET', KEYS[3], 'finish', ARGV[3])
redis.call('PEXPIRE', KEYS[3], ARGV[2])
redis.call('PEXPIRE', KEYS[2], ARGV[2])
return 1
"""
)
