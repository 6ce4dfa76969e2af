"""Every rule has its marker in hub/, and every marker its rule; and each switch fits the line that it is for."""

from __future__ import annotations

import pytest

from hub.store.scripts import Script, read_all
from tests.integration.walk.rules import RULES
from tests.support import switches
from tests.support.switches import DROP, NEVER, BadSwitch, Mutation, Source, marker_counts, value

SCRIPTS = read_all()
# Where the source of a switch is looked for in these tests.
PYTHON = """\
def first(a):
    if (
        a < 3  # rule: small
        and a > 1
    ):
        a = max(
            a, 2
        )  # rule: large
    return a  # rule: all, some/1
"""


def test_each_rule_has_its_marker_and_each_marker_its_rule():
    wanted = {
        marker: switch.lines
        for mutation in RULES.values()
        for marker, switch in mutation.switches.items()
    }
    assert marker_counts() == wanted


@pytest.mark.parametrize("rule", RULES)
def test_a_switch_changes_something_and_comes_back(rule):
    """A script, or a function; what it puts there compiles, and knows every name."""
    mutation = RULES[rule]
    functions = [
        function
        for path, markers in switches.sources().items()
        if path.suffix == ".py"
        and (lines := [at for m in mutation.switches for at in markers.get(m, ())])
        for function in switches._functions(path, Source(str(path), path.read_text()).tree, lines)
    ]
    before = [function.__code__ for function in functions]
    with mutation.patch():
        assert all(f.__code__ != code for f, code in zip(functions, before, strict=True))
    assert [function.__code__ for function in functions] == before
    assert functions or mutation.apply(SCRIPTS) != SCRIPTS


def test_a_marker_that_is_missing_or_there_too_often_is_an_error():
    with pytest.raises(BadSwitch, match="0 lines of hub/ have the marker `rule: no_such_rule`"):
        Mutation({"no_such_rule": DROP}).patch()
    with pytest.raises(BadSwitch, match="2 lines of hub/ have the marker `rule: sent_filter`"):
        Mutation({"sent_filter": DROP}).apply(SCRIPTS)
    with pytest.raises(BadSwitch, match="NO_SUCH_BOUND"):
        Mutation(NO_SUCH_BOUND=1).apply(SCRIPTS)


def test_markers_are_at_the_end_of_code():
    assert Source("a.py", PYTHON).marked == {"small": [2], "large": [7], "all": [8], "some/1": [8]}
    for line in ("# rule: alone", "a = 1  # rule: This one", "a = 1  # Rule: a", "a = 1  # rule:"):
        with pytest.raises(BadSwitch, match=r"a.py:1 has a marker"):
            Source("a.py", line)


def test_a_dropped_line_is_a_statement_or_a_part_of_a_condition():
    source = Source("a.py", PYTHON)
    source.drop(7)
    source.drop(2)
    assert source.lines[2:8] == [
        "        True",
        "        and a > 1",
        "    ):",
        "        pass",
        "",
        "",
    ]


def test_a_switch_that_does_not_fit_is_an_error():
    """What was renamed in the product must not make a test fail for another reason than the missing rule."""
    source = Source("a.py", PYTHON)
    with pytest.raises(BadSwitch, match="does not know renamed"):
        value("renamed").edit(source, 8)
    with pytest.raises(BadSwitch, match="has no condition"):
        NEVER.edit(source, 8)
    with pytest.raises(BadSwitch, match="stays what it was"):
        value("a").edit(source, 8)


def test_lines_of_scripts_are_found_in_all_scripts_that_share_them():
    changed = RULES["fence_all"].apply(SCRIPTS)
    alone = {"publish", "permissions", "history", "detect_loss", "renew", "release", "commit"}
    assert {name for name in SCRIPTS if changed[name] != SCRIPTS[name]} == {*SCRIPTS} - alone
    assert isinstance(changed["park"], Script)
