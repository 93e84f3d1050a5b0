"""Leases in Redis. A lease is a key with the id of its only holder; the key expires.

Between a GET and the next command a lease could expire and go to another holder, so a script
compares and acts at once.
"""

from redis import Redis

RENEW = "return redis.call('GET', KEYS[1]) == ARGV[1] and redis.call('EXPIRE', KEYS[1], ARGV[2])"
RELEASE = "return redis.call('GET', KEYS[1]) == ARGV[1] and redis.call('DEL', KEYS[1])"


def acquire(redis: Redis, key: str, holder: str, seconds: int) -> bool:
    """Acquires a free lease; returns whether it was free. Raises RedisError."""
    return bool(redis.set(key, holder, nx=True, ex=seconds))


def renew(redis: Redis, key: str, holder: str, seconds: int) -> bool:
    """Renews the holder's lease; returns whether the holder had it. Raises RedisError."""
    return bool(redis.eval(RENEW, 1, key, holder, str(seconds)))


def release(redis: Redis, key: str, holder: str) -> None:
    """Deletes the lease if the holder has it. Raises RedisError."""
    redis.eval(RELEASE, 1, key, holder)
