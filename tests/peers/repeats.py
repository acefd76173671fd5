"""One write by a client library as it is delivered, its own repeats included: `repeats.py LIBRARY HOST
PORT UNIT ADDRESS VALUE`. Prints one word: `done`, `exception N`, or the name of what was raised.
"""

import asyncio
import sys


def pymodbus_sync(host, port, unit, address, value):
    from pymodbus.client import ModbusTcpClient

    client = ModbusTcpClient(host, port=port)
    assert client.connect()
    return told(client.write_register(address, value, device_id=unit))


async def pymodbus_async(host, port, unit, address, value):
    from pymodbus.client import AsyncModbusTcpClient

    client = AsyncModbusTcpClient(host, port=port)
    assert await client.connect()
    return told(await client.write_register(address, value, device_id=unit))


async def tmodbus(host, port, unit, address, value):
    from tmodbus import create_async_tcp_client

    client = create_async_tcp_client(host, port, unit_id=unit)
    await client.connect()
    await client.write_single_register(address, value)
    return "done"


def told(answer):
    return f"exception {answer.exception_code}" if answer.isError() else "done"


def main(library, host, *numbers):
    ask = {
        "pymodbus": pymodbus_sync,
        "pymodbus-async": lambda *asked: asyncio.run(pymodbus_async(*asked)),
        "tmodbus": lambda *asked: asyncio.run(tmodbus(*asked)),
    }[library]
    try:
        said = ask(host, *map(int, numbers))
    except Exception as error:
        said = type(error).__name__
    print(said)


main(*sys.argv[1:])
