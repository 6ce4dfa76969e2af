-- Give up the lease of a node that owns no sessions any more.
--
-- KEYS  1 clock
-- ARGV  1 node   2 milliseconds after which everything else has expired
-- Answer: 'ok'

redis.call('DEL', base .. 'node:' .. ARGV[1])
redis.call('SREM', base .. 'nodes', ARGV[1])
redis.call('PEXPIRE', base .. 'schema', ARGV[2])
return 'ok'
