"""A worker as an application has it: `python -m tests.support.worker URL ROOM NAME NOTES OPTIONS`.

It appends a line to the file NOTES for each message that it handles. OPTIONS is JSON: `file` (its position file or
null), `runs` (true: it ends by `client.run()`; false: it is ended by its signals), `work` (seconds that its handler takes).
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from typing import Any

from hub.client import HubClient
from hub.model import Meta

URL, ROOM, NAME, NOTES, OPTIONS = sys.argv[1:]
options = json.loads(OPTIONS)
notes = os.open(NOTES, os.O_CREAT | os.O_APPEND | os.O_WRONLY)
client = HubClient(URL, client_id=NAME, position_file=options["file"])


@client.on("m")
async def handle(data: Any, meta: Meta) -> None:
    os.write(notes, f"begin {data}\n".encode())
    if options["work"]:
        await asyncio.sleep(options["work"])
    os.write(notes, f"{data}\n".encode())


async def until_killed() -> None:
    async with client:
        await client.subscribe(ROOM)
        await client.wait()


asyncio.run(client.run(ROOM) if options["runs"] else until_killed())
