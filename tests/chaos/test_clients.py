"""What the storm's clients say of themselves where something went wrong."""

from __future__ import annotations

from tests.chaos.clients import StockPython
from tests.chaos.history import History
from tests.support.times import eventually


async def test_a_stock_python_client_says_how_it_stands(cluster):
    """What it reads with, what it waits for, and what ended its reading: by itself it dies of that in silence."""
    record = History().record("stock", "stock python", returns=False)
    client = StockPython(cluster.doors[0].url, record, ["polling"], "stock")
    await client.start()
    try:
        await client.began()
        assert "connected, polling" in client.standing()
        assert "AsyncClient._read_loop_polling" in client.standing()
        reading = client._stock.sio.eio.read_loop_task
        reading.cancel()
        await eventually(reading.done)
        assert "reads: <Task cancelled" in client.standing()
    finally:
        client._stock.sio.eio.state = "disconnected"  # it would wait for the reading that has ended
        await client.stop()
