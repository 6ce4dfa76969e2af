"""Each rule that the executable model names is needed: without it a scene goes wrong, with it the same scene holds."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.integration.walk.rules import RULES
from tests.integration.walk.scene import Scene, play
from tests.integration.walk.scenes import SCENES, TOGETHER
from tests.support.redis import RedisServer

MODEL = {
    "sub_adds_away", "resub_keeps_join", "join_filter", "sub_bus_first", "sub_holds_all", "log_decides",
    "never_empty", "park_from_live", "sent_filter", "heal_holds", "heal_cut", "heal_gap", "gap_offset",
    "gap_early", "final_gap", "lapse_replays", "fence_all", "gen_in_key", "echo_in_log", "replay_filters",
    "n_gap", "floor_expiry", "unsub_state", "ttl_connected", "buffer_replay",
}  # fmt: skip


@pytest.fixture(scope="module")
def server() -> Iterator[RedisServer]:
    """A server that the scenes empty as they like."""
    server = RedisServer()
    yield server
    server.stop()


@pytest.fixture(autouse=True)
def quiet_logs() -> None:
    """No hub process runs here."""


def test_every_rule_of_the_model_has_its_scene() -> None:
    """Nobody can forget one."""
    assert set(SCENES) >= MODEL
    assert set(RULES) == set(SCENES)


@pytest.mark.parametrize("rule", SCENES)
def test_the_scene_holds(server: RedisServer, rule: str) -> None:
    """With every rule on the scene ends as promised."""
    story, settings = SCENES[rule]
    assert play(server, story, None, **settings) is None


@pytest.mark.parametrize("rule", SCENES)
def test_the_rule_is_needed(server: RedisServer, rule: str) -> None:
    """With the rule off, the check of the promises says what went wrong."""
    story, settings = SCENES[rule]
    assert play(server, story, RULES[rule], **settings)


@pytest.mark.parametrize("rule", TOGETHER)
def test_the_rule_is_needed_where_rooms_are_joined_together(server: RedisServer, rule: str) -> None:
    """One script joins two rooms: what holds for one of them holds for both."""
    played: list[Scene] = []

    def story(scene: Scene) -> None:
        played.append(scene)
        TOGETHER[rule](scene)

    assert play(server, story, None) is None
    assert play(server, story, RULES[rule])
    assert played[0].stat["joined together"]


@pytest.mark.parametrize(
    ("rule", "scripts", "node"),
    [
        ("gen_in_key", ["gen_in_key/1", "gen_in_key/2"], "gen_in_key/3"),
        ("replay_filters", ["replay_filters/1"], "replay_filters/2"),
    ],
)
def test_doors_with_two_locks(
    server: RedisServer, rule: str, scripts: list[str], node: str
) -> None:
    """What the script lets through by mistake the node stops, and the other way round."""
    story, settings = SCENES[rule]
    assert play(server, story, RULES[rule].only(*scripts), **settings) is None
    assert play(server, story, RULES[rule].only(node), **settings) is None


def test_an_emptied_list_is_read_from_the_logs(server: RedisServer) -> None:
    """`never_empty` has become harmless to break: no list means everything from the logs."""
    story, settings = SCENES["never_empty"]
    trimming_only = RULES["never_empty"].only("never_empty/1")
    assert play(server, story, trimming_only, **settings) is None
