"""A pymodbus server: `server.py tcp HOST PORT`, `server.py tls HOST PORT FOLDER LEAST MOST` (TLS with
key.pem and bundle.pem of FOLDER, versions such as 1.2) or `server.py serial PATH BAUD`.

Units 1 and 2. Holding registers 0-99 and input registers 0-39 start as 1000 * unit + address,
coils 0-15 as on where the address divides by 3, discrete inputs 0-15 where it divides by 5.
Holding 40 takes values up to 2000, holding 99 answers that the device is busy.
"""

import asyncio
import ssl
import sys

from pymodbus import FramerType, ModbusDeviceIdentification
from pymodbus.constants import ExcCodes
from pymodbus.server import ModbusSerialServer, ModbusTcpServer, ModbusTlsServer
from pymodbus.simulator import DataType, SimData, SimDevice

UNITS = (1, 2)


async def judge(function, _start, address, count, _registers, values):
    if values and function in (6, 16) and address == 40 and values[0] > 2000:
        return ExcCodes.ILLEGAL_VALUE
    if function == 3 and address <= 99 < address + count:
        return ExcCodes.DEVICE_BUSY
    return None


def bits(divisor):
    values = [address % divisor == 0 for address in range(16)]
    return [SimData(0, values=values, datatype=DataType.BITS)]


def registers(unit, count):
    values = [1000 * unit + address for address in range(count)]
    return [SimData(0, values=values, datatype=DataType.REGISTERS)]


def device(unit):
    tables = (bits(3), bits(5), registers(unit, 100), registers(unit, 40))
    return SimDevice(unit, simdata=tables, action=judge)


IDENTITY = ModbusDeviceIdentification(
    info_name={
        "VendorName": "Fieldlock",
        "ProductCode": "interop",
        "MajorMinorRevision": "3.16",
        "VendorUrl": "https://example.org",
    }
)


def tls(folder, least, most):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_verify_locations(f"{folder}/bundle.pem")
    context.load_cert_chain(f"{folder}/bundle.pem", f"{folder}/key.pem")
    versions = {"1.2": ssl.TLSVersion.TLSv1_2, "1.3": ssl.TLSVersion.TLSv1_3}
    context.minimum_version = versions[least]
    context.maximum_version = versions[most]
    return context


async def main():
    devices = [device(unit) for unit in UNITS]
    match sys.argv[1:]:
        case ["tcp", host, port]:
            address = (host, int(port))
            server = ModbusTcpServer(devices, identity=IDENTITY, address=address)
        case ["tls", host, port, *how]:
            server = ModbusTlsServer(
                devices, identity=IDENTITY, address=(host, int(port)), sslctx=tls(*how)
            )
        case ["serial", path, baud]:
            server = ModbusSerialServer(
                devices,
                framer=FramerType.RTU,
                identity=IDENTITY,
                port=path,
                baudrate=int(baud),
            )
        case _:
            sys.exit(__doc__)
    await server.serve_forever(background=True)
    print("ready", flush=True)
    await asyncio.Event().wait()


asyncio.run(main())
