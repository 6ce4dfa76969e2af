-- Renew a node's lease.
--
-- KEYS  1 clock
-- ARGV  1 node   2 lease in milliseconds   3 milliseconds that the set of nodes is kept   4 '1': the first time
--       5 schema version
-- Answer: '1'; '0': the lease had lapsed, and others may have parked the node's sessions

local node = ARGV[1]
local lease = base .. 'node:' .. node
local held = redis.call('DEL', lease) == 1                       -- a removal first: passes when Redis is full
redis.call('SET', lease, '1', 'PX', ARGV[2])
redis.call('SADD', base .. 'nodes', node)
redis.call('PEXPIRE', base .. 'nodes', ARGV[3])
redis.call('SET', base .. 'schema', ARGV[5], 'PX', ARGV[3])
if redis.call('EXISTS', served_key(node)) == 1 then redis.call('PEXPIRE', served_key(node), ARGV[3]) end
if held or ARGV[4] == '1' then return '1' end
return '0'
