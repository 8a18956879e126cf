"""The Lua that Redis runs for requests. Every write that claims ownership checks the fencing epoch first.

Why a stale owner cannot do harm:

- A lease's epoch is written before anything else of its owner, in the same atomic script. A
  lower one is refused from then on; a higher one is adopted, for it was granted while Redis was
  away. The epoch lives as long as the request, not as the lease, so that an owner that was
  stopped for hours still finds itself refused.
- The caller proposes floor + 1, the floor being no lower than any epoch it knows of the request
  and than the wall clock in ms, which stands in for what a restarted caller has forgotten. If
  Redis knows a higher one, the clock went back: nothing is taken, and the caller proposes that
  one's successor. So epochs grow whatever the clock does, while either side remembers. When both
  have forgotten and the clock went back too, two owners may overtake each other; but a block
  once there is never replaced, and both compute the same tokens.
- Exchanges may run twice, or long after their caller gave up on them. A repeated acquisition has
  the same floor and owner, and comes to the same epoch; a late one finds a higher epoch and takes
  nothing; all other scripts leave behind what their first run did.

All keys of one script belong to one request and share a hash tag.
"""

import hashlib
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Script:
    """Lua, and the name by which Redis keeps it."""

    text: str
    sha: str = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "sha", hashlib.sha1(self.text.encode(), usedforsecurity=False).hexdigest())


@dataclass(frozen=True, slots=True)
class Call:
    """A script to run, and what it is told."""

    script: Script
    keys: tuple[str, ...]
    arguments: tuple[str | int, ...] = ()


# A time further ahead than it can have been set is one from before the clock went back.
CLOCK = """
local function now()
  local time = redis.call('TIME')
  return time[1] * 1000 + math.floor(time[2] / 1000)
end
local function ahead(ms) return string.format('%.0f', now() + ms) end
local function alive(limit, ms)
  local rest = tonumber(limit or '0') - now()
  return rest > 0 and rest <= tonumber(ms)
end
"""

# KEYS of all that follow: request, blocks. ARGV of those that write for an owner: epoch (or floor),
# lease, active and terminal time to live in ms, then their own.
_COMMON = (
    CLOCK
    + """
local function keep()
  local ttl = ARGV[3]
  if redis.call('HEXISTS', KEYS[1], 'finish') == 1 then ttl = ARGV[4] end
  redis.call('PEXPIRE', KEYS[1], ttl)
  redis.call('PEXPIRE', KEYS[2], ttl)
end
local function take(epoch, owner)
  redis.call('HSET', KEYS[1], 'epoch', epoch, 'owner', owner)
  redis.call('HDEL', KEYS[1], 'finish')
end
local function sign_of_life() redis.call('HSET', KEYS[1], 'until', ahead(ARGV[2])) end
"""
)

# ARGV[5]: owner. Returns the new epoch, or minus the one that is there if it is above the floor.
# A new owner reopens a request that was cancelled. Of an adopted epoch the owner is not known.
ACQUIRE = Script(
    _COMMON
    + """
local held = redis.call('HGET', KEYS[1], 'epoch') or '0'
local owner = redis.call('HGET', KEYS[1], 'owner')
local epoch = tonumber(ARGV[1]) + 1
local again = tonumber(held) == epoch and (owner == ARGV[5] or owner == '')
if tonumber(held) >= epoch and not again then return '-' .. held end
local text = string.format('%.0f', epoch)
if again then redis.call('HSET', KEYS[1], 'owner', ARGV[5]) else take(text, ARGV[5]) end
sign_of_life()
keep()
return text
"""
)

# ARGV: request, active time to live in ms. The end may be there already: another process writes it.
# An owner that is told that something is missing offers it all again, from the admission on.
ADMIT = Script("""
redis.call('HSETNX', KEYS[1], 'request', ARGV[1])
redis.call('HDEL', KEYS[1], 'missing')
if redis.call('HEXISTS', KEYS[1], 'finish') == 0 then redis.call('PEXPIRE', KEYS[1], ARGV[2]) end
return 1
""")

# What follows it returns 0: stale, 1: written, 2: written, but something before it is missing. The
# latter is said until the request is admitted again, for an answer may be lost on its way.
_FENCE = (
    _COMMON
    + """
local state = redis.call('HMGET', KEYS[1], 'epoch', 'missing')
local held = tonumber(state[1] or '-1')
local epoch = tonumber(ARGV[1])
if epoch < held then return 0 end
local reply = state[2] and 2 or 1
local function miss()
  redis.call('HSET', KEYS[1], 'missing', 1)
  reply = 2
end
if held < 0 then miss() end
if epoch > held then
  take(ARGV[1], '')
  sign_of_life()
  keep()
end
"""
)

RENEW = Script(_FENCE + "sign_of_life()\nkeep()\nreturn reply")

# ARGV[5]: block index, [6]: block. A block that is there stays as it is, and is not asked what came
# before, or an owner that cannot fill the gap would try for ever. It is no sign of life, for the
# renewals are enough of them and each costs a write.
APPEND = Script(
    _FENCE
    + """
local new = redis.call('HSETNX', KEYS[2], ARGV[5], ARGV[6]) == 1
local before = string.format('%.0f', ARGV[5] - 1)
if new and before ~= '-1' and redis.call('HEXISTS', KEYS[2], before) == 0 then miss() end
if redis.call('PTTL', KEYS[2]) < 0 then keep() end
return reply
"""
)

# ARGV[5]: finish reason. What came to its own end is not cancelled any more. A hand-over ends the
# lease and not the request.
FINISH = Script(
    _FENCE
    + """
local finish = redis.call('HGET', KEYS[1], 'finish')
if ARGV[5] ~= 'handed_over' and finish ~= 'stop' and finish ~= 'length' then
  redis.call('HSET', KEYS[1], 'finish', ARGV[5])
end
redis.call('HDEL', KEYS[1], 'until')
keep()
return reply
"""
)

# ARGV: lease time to live in ms. Returns both hashes, and whether the lease lives.
READ = Script(
    CLOCK
    + """
local live = alive(redis.call('HGET', KEYS[1], 'until'), ARGV[1])
return {redis.call('HGETALL', KEYS[1]), redis.call('HGETALL', KEYS[2]), live and 1 or 0}
"""
)

# Loaded together, so that Redis has either all of them or none, and no exchange is run by halves.
ALL = (ACQUIRE, ADMIT, RENEW, APPEND, FINISH, READ)
