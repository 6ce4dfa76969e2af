"""The first page in a real Chromium against a real hub: publish, cut, come back, see it arrive."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import redis
from playwright.async_api import Locator, Page, expect

from tests.support.hubs import Hub
from tests.support.times import UNIT, eventually

# One browser serves them all, so they share its loop.
pytestmark = [pytest.mark.timeout(120 * UNIT), pytest.mark.asyncio(loop_scope="module")]
expect.set_options(timeout=15_000 * UNIT)

StartHub = Callable[..., Hub]


class Client:
    """One of the page's two clients, as its user sees it."""

    def __init__(self, page: Page, name: str) -> None:
        self.pane = page.get_by_role("region", name=name)
        self.status = self.pane.get_by_role("status")
        self.log = self.pane.get_by_role("log")
        self.message = self.pane.get_by_label("Message")
        self.room = self.pane.get_by_label("Room", exact=True)
        self.rooms = self.pane.get_by_role("list", name="Rooms joined").get_by_role("listitem")

    def entries(self, kind: str) -> Locator:
        return self.log.locator(f".{kind} .body")

    async def press(self, name: str) -> None:
        await self.pane.get_by_role("button", name=name).click()

    async def publish(self, text: str, room: str = "lobby") -> None:
        await self.pane.get_by_label("To").select_option(room)
        await self.message.fill(text)
        await self.press("Publish")
        await expect(self.message).to_have_value("")

    async def join(self, room: str) -> None:
        await self.room.fill(room)
        await self.press("Join")
        await expect(self.log).to_contain_text(f"Joined {room}.")


async def visit(page: Page, hub: Hub, path: str = "") -> tuple[Client, Client]:
    """Open the page; both clients are live in the lobby."""
    await page.goto(hub.url + path)
    clients = Client(page, "Client A"), Client(page, "Client B")
    for client in clients:
        await expect(client.log).to_contain_text("Joined lobby.")
        await expect(client.status).to_have_text("live")
    return clients


async def session_ended(hub: Hub) -> None:
    """Wait until only one of the page's two clients has a session left."""
    with redis.Redis(unix_socket_path=str(hub.settings["data_dir"] / "redis.sock")) as store:
        await eventually(lambda: len(store.keys("*:session:*")) == 1, what="the session's end")


async def test_it_works_under_a_base_path(page, start_hub):
    """Its own files, the stock client's and the connection are there, also for an address without the last slash."""
    a, b = await visit(page, start_hub(base_path="/tools/hub"), "/tools/hub")
    await a.publish("hello")
    await expect(b.entries("live")).to_have_text(["hello"])


async def test_what_was_missed_arrives_as_replay_once_and_in_order(page, start_hub):
    a, b = await visit(page, start_hub())
    await a.publish("before")
    await expect(b.entries("live")).to_have_text(["before"])

    await b.press("Cut connection")
    await expect(b.status).to_have_text("away")
    missed = [f"missed {n}" for n in range(5)]
    for text in missed:
        await a.publish(text)
    await expect(a.entries("live")).to_have_text(["before", *missed])
    await expect(b.entries("live")).to_have_text(["before"])
    await expect(b.message).to_be_disabled()

    await b.press("Come back")
    await expect(b.entries("replay")).to_have_text(missed)
    await expect(b.log).to_contain_text("Back: session recovered, 5 missed messages follow.")
    await expect(b.status).to_have_text("live")
    await a.publish("after")
    await expect(b.entries("live")).to_have_text(["before", "after"])
    await expect(b.entries("replay")).to_have_text(missed)


async def test_nothing_missed(page, start_hub):
    _, b = await visit(page, start_hub())
    for _round in range(3):
        await b.press("Cut connection")
        await expect(b.status).to_have_text("away")
        await b.press("Come back")
        await expect(b.status).to_have_text("live")
    await expect(b.log.get_by_text("Back: session recovered, nothing was missed.")).to_have_count(3)
    await expect(b.entries("replay")).to_have_count(0)


async def test_both_away_at_once(page, start_hub):
    a, b = await visit(page, start_hub())
    await b.press("Cut connection")
    await a.publish("one")
    await a.press("Cut connection")
    await b.press("Come back")
    await expect(b.entries("replay")).to_have_text(["one"])
    await b.publish("two")
    await a.press("Come back")
    await expect(a.entries("replay")).to_have_text(["two"])


async def test_a_killed_hub_is_recovered_from(page, start_hub, hub_goes):
    """Both clients come back by themselves, to the same sessions, when the hub is there again."""
    hub = start_hub()
    a, b = await visit(page, hub)
    await b.press("Cut connection")
    await a.publish("kept")
    hub.kill()
    await expect(a.status).to_have_text("connecting…")
    hub.start()
    await expect(a.status).to_have_text("live")
    await expect(a.log).to_contain_text("Back: session recovered")
    await b.press("Come back")
    await expect(b.entries("replay")).to_have_text(["kept"])


async def test_a_gap_is_told(page, start_hub):
    """Three messages that the room's log no longer holds, then the two that it does."""
    a, b = await visit(page, start_hub(log_length=2, inbox_length=2))
    await b.press("Cut connection")
    for n in range(5):
        await a.publish(f"{n}")
    await b.press("Come back")
    await expect(b.entries("replay")).to_have_text(["3", "4"])
    await expect(b.entries("gap")).to_have_text(["3 messages lost: more came than the hub keeps."])


async def test_a_session_that_has_ended_begins_anew_and_catches_up(page, start_hub):
    """The new session asks for what came since the last message seen: earlier, not replay."""
    hub = start_hub(anonymous_life=UNIT)
    a, b = await visit(page, hub)
    await a.publish("seen")
    await expect(b.entries("live")).to_have_text(["seen"])
    await b.press("Cut connection")
    await a.publish("unseen")
    await session_ended(hub)
    await b.press("Come back")
    await expect(b.log).to_contain_text("Back with a new session: the old one has ended.")
    await expect(b.entries("past")).to_have_text(["unseen"])


async def test_more_than_one_answer_holds_is_told(page, start_hub):
    """A new session's first answer is the beginning of what was missed; that it has an end is said."""
    hub = start_hub(anonymous_life=UNIT, replay_bytes=1024)
    a, b = await visit(page, hub)
    await a.publish("seen")
    await expect(b.entries("live")).to_have_text(["seen"])
    await b.press("Cut connection")
    for n in range(3):
        await a.publish(f"{n}" * 900)
    await session_ended(hub)
    await b.press("Come back")
    await expect(b.entries("gap")).to_have_text(
        ["lobby: more was missed than one answer holds; the rest is not shown."]
    )
    assert await b.entries("past").count() < 3


async def test_a_room_whose_join_was_not_answered_is_joined_at_the_next_connection(
    page, start_hub, hub_goes
):
    hub = start_hub()
    a, b = await visit(page, hub)
    hub.freeze()
    await a.room.fill("news")
    await a.press("Join")
    hub.kill()
    await expect(a.entries("error").first).to_have_text("subscribe: no answer.")
    hub.start()
    await expect(a.log).to_contain_text("Joined news.")
    await expect(a.rooms).to_have_text(["lobby×", "news×"])
    await b.publish("heard")
    await expect(a.entries("live")).to_have_text(["heard"])


async def test_rooms_are_joined_with_their_history_and_left(page, start_hub):
    a, b = await visit(page, start_hub())
    await a.join("news")
    await a.publish("early", "news")
    await b.join("news")
    await expect(b.entries("past")).to_have_text(["early"])
    await a.publish("now", "news")
    await expect(b.entries("live")).to_have_text(["now"])
    await b.press("Leave news")
    await expect(b.log).to_contain_text("Left news.")
    await a.publish("later", "news")
    await a.publish("end")
    await expect(b.entries("live")).to_have_text(["now", "end"])


async def test_a_refusal_is_told_and_the_text_kept(page, start_hub):
    a, _ = await visit(page, start_hub(max_message=100_000))
    await a.room.fill("@somebody")
    await a.press("Join")
    await expect(a.entries("error")).to_have_count(1)
    await expect(a.entries("error")).to_contain_text("subscribe: ")


async def test_messages_are_text_whatever_is_in_them(page, start_hub):
    _, b = await visit(page, start_hub())
    text = "<img src=x onerror=alert(1)> & \u202e <b>bold</b>"
    await b.publish(text)
    await expect(b.entries("live")).to_have_text([text])
    await expect(b.log.locator("img, b")).to_have_count(0)


async def test_of_long_messages_the_beginning_is_kept_and_strange_ones_do_not_get_lost(
    page, start_hub
):
    _, b = await visit(page, start_hub())
    await page.evaluate(
        """async () => {
            const socket = io({ forceNew: true });
            for (const by of [{ toString: 1 }, "n".repeat(100_000)]) {
                const data = { text: "w".repeat(100_000), by };
                await socket.emitWithAck("publish", { room: "lobby", event: "message", data });
            }
            socket.disconnect();
        }"""
    )
    await expect(b.entries("live")).to_have_text(["w" * 2000 + "…"] * 2)
    await expect(b.log.locator(".live .from").last).to_have_text("n" * 2000 + "…:")


async def test_it_can_be_used_by_keyboard_alone(page, start_hub):
    a, b = await visit(page, start_hub())
    await a.message.focus()
    await page.keyboard.type("typed")
    await page.keyboard.press("Enter")
    await expect(b.entries("live")).to_have_text(["typed"])
    await b.pane.get_by_role("button", name="Cut connection").focus()
    await page.keyboard.press("Enter")
    await expect(b.status).to_have_text("away")
    await page.keyboard.press("Space")
    await expect(b.status).to_have_text("live")
    await page.keyboard.press("Enter")
    await expect(b.status).to_have_text("away")


async def test_rooms_come_and_go_without_taking_the_focus(page, start_hub):
    """Whoever leaves one by the keyboard is at the next one then, in the end at the field."""
    a, _ = await visit(page, start_hub())
    await a.join("news")
    await a.pane.get_by_label("To").select_option("news")
    leave = [a.pane.get_by_role("button", name=f"Leave {n}") for n in ("lobby", "news", "more")]
    await a.room.fill("more")
    await a.room.press("Enter")
    await leave[1].focus()
    await expect(a.log).to_contain_text("Joined more.")
    await expect(leave[1]).to_be_focused()
    await expect(a.pane.get_by_label("To")).to_have_value("news")
    for next_one in (leave[2], leave[0], a.room):
        await page.keyboard.press("Enter")
        await expect(next_one).to_be_focused()
    await expect(a.rooms).to_have_count(0)


async def test_a_lost_connection_leaves_the_focus_and_the_text_where_they_are(
    page, start_hub, hub_goes
):
    hub = start_hub()
    a, _ = await visit(page, hub)
    await a.message.focus()
    await page.keyboard.type("begun")
    hub.kill()
    await expect(a.message).to_be_disabled()
    await page.keyboard.type(" unseen")
    await page.keyboard.press("Enter")
    hub.start()
    await expect(a.message).to_be_enabled()
    await expect(a.message).to_be_focused()
    await page.keyboard.type(", and ended")
    await page.keyboard.press("Enter")
    await expect(a.entries("live")).to_have_text(["begun, and ended"])


async def test_the_log_is_a_list(page, start_hub):
    """What a reader of screens is told: a log, to be scrolled by keyboard, and in it a list."""
    a, _ = await visit(page, start_hub())
    await expect(a.log).to_have_attribute("tabindex", "0")
    await expect(a.log).to_have_accessible_name("What Client A received")
    await expect(a.log.get_by_role("list").get_by_role("listitem")).to_have_count(2)


@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_it_fits_a_small_phone(page, start_hub, scheme):
    """Nothing sticks out at 320 pixels, long words included."""
    await page.set_viewport_size({"width": 320, "height": 640})
    await page.emulate_media(color_scheme=scheme)
    a, b = await visit(page, start_hub())
    await a.join("r" * 200)
    await a.publish("w" * 300)
    await expect(b.entries("live")).to_have_count(1)
    width = await page.evaluate("document.documentElement.scrollWidth")
    assert width <= 320


async def test_without_the_client_library_it_says_so(page, start_hub, complaints):
    hub = start_hub()
    await page.route("**/socket.io.min.js", lambda route: route.abort())
    await page.goto(hub.url)
    await expect(page.get_by_role("alert")).to_contain_text("did not load")
    assert len(complaints) == 1
    complaints.clear()
