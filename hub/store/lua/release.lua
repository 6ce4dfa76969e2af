-- End a node that serves nobody any more.
--
-- KEYS  1 clock
-- ARGV  1 node   2 milliseconds that anything else may still live
-- Answer: 'ok'

redis.call('DEL', base .. 'node:' .. ARGV[1])
redis.call('SREM', base .. 'nodes', ARGV[1])
redis.call('PEXPIRE', base .. 'schema', ARGV[2])
return 'ok'
