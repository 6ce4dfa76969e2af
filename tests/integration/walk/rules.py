"""Switches off, one at a time, the rules that the executable model names.

A rule is off where an exact snippet of a script or of a method is replaced. Where the product keeps a rule by another
means than the model does, what took its place is switched off; the comment says so.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from hub.node.maintenance import Maintenance
from hub.node.node import Node
from hub.pubsub.replay import Replayer
from hub.pubsub.rooms import Rooms
from hub.pubsub.session import Session
from hub.redis.bus import Bus
from hub.store.publishing import CommitGroup
from hub.store.store import Store
from tests.integration.walk.lab import Mutation, rewrite


def _gaps_last(self: Session, batch: Any) -> None:
    """Write a batch with its gaps behind its messages."""
    gaps, batch.gaps = batch.gaps, []
    _write_batch(self, batch)
    batch.gaps, batch.messages = gaps, []
    _write_batch(self, batch)


_write_batch = Session.write_batch

# No filter on the node: what the script hands out is written.
_WRITE_ALL = rewrite(
    Session.write_batch,
    "if message.offset > self.joins.get(message.room, message.offset)",
    "if True",
)

# The rules of the executable model, and those found since.
RULES: dict[str, Callable[[], Mutation]] = {
    "sub_adds_away": lambda: Mutation(
        ("subscribe", "if session.away == '1' then", "if false then"),
    ),
    "resub_keeps_join": lambda: Mutation(
        ("subscribe", "if joined and ARGV[5] == '1' then", "if false then"),
    ),
    "join_filter": lambda: Mutation(
        Rooms__enter=rewrite(Rooms.enter, "room.members[session] = join", "room.members[session] = 0"),
    ),
    "sub_bus_first": lambda: Mutation(
        Node__subscribe=rewrite(
            Node.subscribe,
            "await self.store.bus.confirmed(room.channel, self.settings.redis_timeout)",
            "pass",
        ),
    ),
    "sub_holds_all": lambda: Mutation(
        Session__deliver=rewrite(
            Session.deliver, "if self.holding:", "if self.holding and message.room not in self.joins:"
        ),
    ),
    # The head of the list is the boundary; off: the mark stays it, whatever was trimmed behind it.
    "log_decides": lambda: Mutation(
        ("replay", "boundary = tonumber(string.match(mark, '^%d+'))", "boundary = tonumber(session.mark)"),
    ),
    # An empty list is no list, and without one everything is read from the logs: that keeps what this rule is for.
    # Off: trimming empties the list, and an empty list counts as one on which nothing is missed.
    "never_empty": lambda: Mutation(
        ("publish", "call('LTRIM', inbox, -math.max(least, 1), -1)", "call('DEL', inbox)"),
        (
            "replay", "local boundary, listed = head, false",
            "local boundary, listed = session.away == '1' and tonumber(session.mark) or head, false",
        ),
    ),
    "park_from_live": lambda: Mutation(
        (
            "common", "redis.call('DEL', session.inbox)\n    redis.call('RPUSH', session.inbox, mark)",
            "if redis.call('EXISTS', session.inbox) == 0 then redis.call('RPUSH', session.inbox, mark) end",
        ),
        ("replay", "    redis.call('DEL', session.inbox)\n    for room", "    for room"),
    ),
    "sent_filter": lambda: Mutation(
        Session__deliver=rewrite(Session.deliver, " or message.offset <= self.sent", ""),
        Rooms__fan_out=rewrite(Rooms.fan_out, "session.sent < first and ", ""),
    ),
    # Merged: nothing is read into the node. Nobody is live between a loss of the bus and his replay; off: he is.
    "heal_holds": lambda: Mutation(
        Replayer__catch_up=rewrite(Replayer.catch_up, "session.go_away()", "pass"),
        Node___deaf=rewrite(Node._deaf, "session.go_away()", "pass"),
    ),
    # Merged: the clock of the replay that makes a session live is the cut, taken when all channels are confirmed;
    # off: it is taken without waiting for them.
    "heal_cut": lambda: Mutation(
        Replayer___replay=rewrite(Replayer._replay, "await self._rooms.confirmed(session)", "pass"),
        Replayer___batch=rewrite(Replayer._batch, "if not self._rooms.hears(session):", "if False:"),
    ),
    # Merged: gaps come from the replay for everybody; off: for those only that had been parked.
    "heal_gap": lambda: Mutation(
        ("replay", "if n ~= reached then", "if n ~= reached and session.away == '1' then"),
    ),
    "gap_offset": lambda: Mutation(
        Session__write_batch=rewrite(
            Session.write_batch,
            '        self.tell(\n            "hub:gap"',
            '        self.sent = gap.before - 1\n        self.tell(\n            "hub:gap"',
        ),
    ),
    "gap_early": lambda: Mutation(Session__write_batch=_gaps_last),
    "final_gap": lambda: Mutation(
        ("replay", "if n ~= reached then", "if n ~= reached and first then"),
    ),
    # The sweep's expiry is taken back by `touch` as well; off: neither is done.
    "lapse_replays": lambda: Mutation(
        (
            "touch", "redis.call('PEXPIRE', session_key(session.client), text(kept(session)))",
            "if session.away ~= '1' then redis.call('PEXPIRE', session_key(session.client), text(kept(session))) end",
        ),
        Maintenance__renew=rewrite(
            Maintenance.renew, "self._replay_all(self._sessions.values())", "pass"
        ),
    ),
    "fence_all": lambda: Mutation(
        ("common", "if session.owner ~= owner then return nil, 'replaced' end", ""),
    ),
    # Two rules guard the same door: each alone keeps it shut (see `replay_filters`).
    "gen_in_key": lambda: Mutation(
        ("common", "return base .. 'inbox:' .. client .. ':' .. gen end", "return base .. 'inbox:' .. client end"),
        ("replay", "local from = behind[room] ", "local from = behind[room] or 0 "),
        Session__write_batch=_WRITE_ALL,
    ),
    "echo_in_log": lambda: Mutation(
        ("replay", "if odd[room] and not meant_for", "if false and not meant_for"),
    ),
    # The node drops what the client has left, too; off: both.
    "replay_filters": lambda: Mutation(
        ("replay", "local from = behind[room] ", "local from = behind[room] or 0 "),
        Session__write_batch=_WRITE_ALL,
    ),
    "n_gap": lambda: Mutation(
        ("replay", "n and not odd[room] and text(reached - n) or ''", "''"),
    ),
    "floor_expiry": lambda: Mutation(
        ("publish", "format('%.0f', ARGV[5] + late)", "format('%.0f', ARGV[4] + late)"),
    ),
    "unsub_state": lambda: Mutation(
        Bus___confirm=rewrite(Bus._confirm, "if owed > 0:", "if False:"),
    ),
    "ttl_connected": lambda: Mutation(
        ("take", "redis.call('PEXPIRE', key, text(kept(session)))", ""),
        ("replay", "redis.call('PEXPIRE', key, text(kept(session)))", ""),
        ("touch", "redis.call('PEXPIRE', session_key(session.client), text(kept(session)))", ""),
    ),
    "buffer_replay": lambda: Mutation(
        Session__deliver=rewrite(
            Session.deliver, "self.kept = _keep(self.kept, message)", "pass"
        ),
    ),
    # -- found while these tests were written, beyond the model
    "lost_answer": lambda: Mutation(("replay", "if state.at == after then", "if _ == 1 then")),
    "swept_owner": lambda: Mutation(
        ("sweep", "park(session, true)", "park(session, true) redis.call('HDEL', session_key(client), 'owner')"),
    ),
    "left_deaf": lambda: Mutation(
        Bus__confirmed=rewrite(Bus.confirmed, "channel in self._wanted and not", "not"),
    ),
    "lost_join": lambda: Mutation(
        ("subscribe", "if joined and ARGV[5] == '1' then", "if joined then"),
    ),
    "passed_join": lambda: Mutation(
        Node__subscribe=rewrite(Node.subscribe, "max(join, session.taken.position)", "join"),
    ),
    "deaf_again": lambda: Mutation(
        Replayer___batch=rewrite(Replayer._batch, "if not self._rooms.hears(session):", "if False:"),
    ),
    "closed_join": lambda: Mutation(
        Node__subscribe=rewrite(Node.subscribe, "if session.closed:", "if False:"),
    ),
    # Who is put out for good was replaced by a later taking of the session, Redis says; off: both.
    "late_admission": lambda: Mutation(
        Node__connect=rewrite(Node.connect, "older.order > order", "False"),
        Node___put_out=rewrite(
            Node._put_out, "await self.store.replaced(session.taken)", "True"
        ),
    ),
    "served_first": lambda: Mutation(
        Store__replaced=rewrite(Store.replaced, "True if owner == served else None", "True"),
    ),
    "learn_whole": lambda: Mutation(
        Rooms__learn=rewrite(Rooms.learn, "recent.fetched(max(after, join),", "recent.fetched(after,"),
    ),
    "told_is_lost": lambda: Mutation(("replay", " and after >= told", "")),
    "left_unheard": lambda: Mutation(
        Rooms__lows=rewrite(Rooms.lows, " and low <= max(session.sent, join)", ""),
    ),
    "read_ahead": lambda: Mutation(Rooms__ahead=property(lambda self: False)),
    "numbers_last": lambda: Mutation(
        Settings__numbers_life=property(lambda self: self.log_age + self.longest_life),
    ),
    "heard_confirmed": lambda: Mutation(
        Rooms__fan_out=rewrite(Rooms.fan_out, " and self._store.bus.hears(room.channel)", ""),
    ),
    "count_from_join": lambda: Mutation(("replay", "known[1] >= joined.join and ", "")),
    "ack_stored": lambda: Mutation(
        Maintenance__prove_now=rewrite(Maintenance.prove_now, 'raise NotOwner(b"replaced")', "pass"),
    ),
    # -- where Redis loses the end of its past
    "loss_told": lambda: Mutation(
        ("rollback", "local from, before = head, seen + 1", "do return '0' end\nlocal from, before = head, seen + 1"),
    ),
    "loss_overtaken": lambda: Mutation(
        ("rollback", "if ARGV[4] == '' or not missing(ARGV[4], ARGV[5]) then", "if true then"),
    ),
    "publisher_knows": lambda: Mutation(
        CommitGroup__answer=rewrite(CommitGroup.answer, "seen.answered(logged, room)", "pass"),
    ),
    "noticed_late": lambda: Mutation(
        Replayer___doubtful=rewrite(
            Replayer._doubtful, "session.doubtful if self._clock() <= self._doubtful_until else None", "None"
        ),
    ),
    "each_loss": lambda: Mutation(
        (
            "rollback", "table.insert(losses, 1, { from, before })",
            "losses[1] = { math.min(from, newest and newest[1] or from), before }",
        ),
    ),
    "told_once": lambda: Mutation(
        Replayer___write=rewrite(
            Replayer._write, "session.at_loss = max(session.at_loss, batch.live_from or batch.position)", "pass"
        ),
    ),
    "lost_for_good": lambda: Mutation(Rooms__lost=lambda self, session, gap: None),
    "before_reset": lambda: Mutation(
        Rooms__lost=rewrite(Rooms.lost, 'gap.reason != "reset"', "True"),
    ),
    "takes_count": lambda: Mutation(
        Node___put_out=rewrite(Node._put_out, "await self.store.replaced(session.taken)", "True"),
    ),
    "serials_are_times": lambda: Mutation(
        ("take", "math.max(session.serial + 1, microseconds())", "session.serial + 1"),
    ),
}  # fmt: skip
