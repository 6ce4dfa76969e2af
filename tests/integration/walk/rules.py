"""Switches off, one at a time, the rules that the executable model names.

Each rule's lines in hub/ have its marker, `# rule: sent_filter`; here stands what they become when the rule is off.
Several switches are for the markers `name/1`, `name/2`, … in this order. Where the product keeps a rule by another means
than the model does, what took its place is switched off; the comment says so.
"""

from __future__ import annotations

from tests.support.switches import (
    ALWAYS,
    DROP,
    FIRST_CONDITION,
    FIRST_OF_MAX,
    NEVER,
    STAY,
    Mutation,
    Switch,
    append,
    condition_and,
    move,
    on,
    only_if,
    prepend,
    substitute,
    value,
)

# The rules of the executable model, and those found since.
_SWITCHES: dict[str, Switch | tuple[Switch, ...]] = {
    "sub_adds_away": NEVER,
    "resub_keeps_join": NEVER,
    "join_filter": value("0"),
    "sub_bus_first": DROP,
    "sub_holds_all": condition_and("message.room not in self.joins"),
    # The head of the list is the boundary; off: the mark stays it, whatever was trimmed behind it.
    "log_decides": value("tonumber(session.mark)"),
    # An empty list is no list, and without one everything is read from the logs: that keeps what this rule is for.
    # Off: trimming empties the list, and an empty list counts as one on which nothing is missed.
    "never_empty": (
        substitute(r"call\('LTRIM', (\w+), .*, -1\)", r"call('DEL', \1)"),
        value("session.away == '1' and tonumber(session.mark) or head, false"),
    ),
    "park_from_live": (on(2, DROP), only_if("redis.call('EXISTS', session.inbox) == 0")),
    "sent_filter": on(2, DROP),
    # Merged: nothing is read into the node. Nobody is live between a loss of the bus and his replay; off: he is.
    "heal_holds": on(2, DROP),
    # Merged: the clock of the replay that makes a session live is the cut, taken when all channels are confirmed;
    # off: it is taken without waiting for them.
    "heal_cut": (DROP, NEVER),
    # Merged: gaps come from the replay for everybody; off: for those only that had been parked.
    "heal_gap": condition_and("session.away == '1'"),
    # Off: the position has moved when gaps are written; or gaps are written after messages and position.
    "gap_offset": (move("gap_offset/2", after=False), STAY),
    "gap_early": (move("gap_early/2", after=True), STAY),
    "final_gap": condition_and("first"),
    # The sweep's expiry is taken back by `touch` as well; off: neither is done.
    "lapse_replays": (DROP, only_if("session.away ~= '1'")),
    "fence_all": DROP,
    # Two rules guard the same door: each alone keeps it shut (see `replay_filters`).
    "gen_in_key": (substitute(r" \.\. ':' \.\. \w+(?= end$)", ""), append("or 0"), ALWAYS),
    "echo_in_log": NEVER,
    # The node drops what the client has left, too; off: both.
    "replay_filters": (append("or 0"), ALWAYS),
    "n_gap": value("''"),
    "floor_expiry": substitute(r"ARGV\[5\]", "ARGV[4]"),
    "unsub_state": NEVER,
    "ttl_connected": on(3, DROP),
    "buffer_replay": DROP,
    # -- found while these tests were written, beyond the model
    # Merged: what was reported goes to the node and comes back from it; off: the script believes that each answer arrives.
    "lost_answer": (
        value("redis.call('HGET', key, 'progress') or ''"),
        append("redis.call('HSET', key, 'progress', following)"),
    ),
    "cursor_void": substitute(r"(cursor is not None) and .*:$", r"\1:"),
    "swept_owner": append("redis.call('HDEL', session_key(client), 'owner')"),
    "left_deaf": DROP,
    "lost_join": substitute(r"\band .* then", "then"),
    "passed_join": FIRST_OF_MAX,
    "deaf_again": NEVER,
    "closed_join": NEVER,
    # Who is put out for good was replaced by a later taking of the session, Redis says; off: both.
    "late_admission": (NEVER, value("True")),
    "served_first": value("True"),
    "learn_whole": FIRST_OF_MAX,
    "told_is_lost": DROP,
    "left_unheard": ALWAYS,
    "read_ahead": value("False"),
    "numbers_last": value("self.log_age + life"),
    "heard_confirmed": FIRST_CONDITION,
    "count_from_join": DROP,
    "ack_stored": DROP,
    "foreign_offset": NEVER,
    "carried_offset": NEVER,
    # -- where Redis loses the end of its past
    "loss_told": prepend("do return '0' end"),
    "loss_overtaken": ALWAYS,
    "publisher_knows": DROP,
    "noticed_late": value("None"),
    "each_loss": substitute(
        r"\S.*", "losses[1] = { math.min(from, newest and newest[1] or from), before }"
    ),
    "told_once": DROP,
    "lost_for_good": DROP,
    "before_reset": DROP,
    "takes_count": value("True"),
    "serials_are_times": FIRST_OF_MAX,
}


def _mutation(rule: str, switches: Switch | tuple[Switch, ...]) -> Mutation:
    if isinstance(switches, Switch):
        return Mutation({rule: switches})
    return Mutation({f"{rule}/{at}": switch for at, switch in enumerate(switches, 1)})


RULES = {rule: _mutation(rule, switches) for rule, switches in _SWITCHES.items()}
