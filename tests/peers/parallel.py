"""pymodbus clients side by side: `parallel.py HOST PORT UNIT CLIENTS ROUNDS`.

Each has a register of its own from holding 42 on, writes to it and reads it back: an answer
that went to the wrong client shows as a wrong value. Prints the number of requests answered.
"""

import asyncio
import sys

from pymodbus.client import AsyncModbusTcpClient


async def one(host, port, unit, place, rounds):
    client = AsyncModbusTcpClient(host, port=port, timeout=10, retries=0, reconnect_delay=0)
    assert await client.connect(), f"client {place}: no connection"
    address = 42 + place
    for step in range(rounds):
        value = 1000 * place + step
        answer = await client.write_register(address, value, device_id=unit)
        assert not answer.isError(), f"client {place}, write {step}: {answer}"
        answer = await client.read_holding_registers(address, count=1, device_id=unit)
        assert not answer.isError(), f"client {place}, read {step}: {answer}"
        assert answer.registers == [value], f"client {place}: {answer.registers}, not {value}"
    client.close()
    return 2 * rounds


async def main(host, port, unit, clients, rounds):
    tasks = [one(host, port, unit, place, rounds) for place in range(clients)]
    print(sum(await asyncio.gather(*tasks)))


asyncio.run(main(sys.argv[1], *map(int, sys.argv[2:])))
