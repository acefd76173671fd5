"""A pymodbus client: `client.py HOST PORT UNIT` asks for everything that the servers of the
interop tests have, and prints what came back as one line of JSON for each request. With FOLDER and
NAME it does so over TLS: with key.pem and bundle.pem of FOLDER, to a server called NAME.

What it reads is what it wrote before, or constant: the lines are the same each time.
"""

import json
import ssl
import sys

from pymodbus.client import ModbusTcpClient, ModbusTlsClient


class Named(ssl.SSLContext):
    """Checks the server's name, which pymodbus has no way to give."""

    server = None

    def wrap_socket(self, sock, server_side=False):
        return super().wrap_socket(sock, server_side=server_side, server_hostname=self.server)


def tls_client(host, port, folder, name):
    context = Named(ssl.PROTOCOL_TLS_CLIENT)
    context.server = name
    context.load_verify_locations(f"{folder}/bundle.pem")
    context.load_cert_chain(f"{folder}/bundle.pem", f"{folder}/key.pem")
    return ModbusTlsClient(host, port=port, sslctx=context, timeout=10, retries=0)


def main(host, port, unit, *tls):
    if tls:
        client = tls_client(host, port, *tls)
    else:
        client = ModbusTcpClient(host, port=port, timeout=10, retries=0)
    assert client.connect(), f"no connection to {host}:{port}"
    for name, ask in requests(client, unit):
        answer = ask()
        print(json.dumps([name, summary(answer)]), flush=True)
    client.close()


def requests(client, unit):
    """Pairs of a name and a call, in order."""
    to = {"device_id": unit}
    values = [0, 1, 0x7FFF, 0x8000, 0xFFFF]
    most = list(range(300, 300 + 57))
    return [
        ("5 on", lambda: client.write_coil(2, True, **to)),
        ("5 off", lambda: client.write_coil(3, False, **to)),
        ("15", lambda: client.write_coils(4, [True, False, True], **to)),
        ("1", lambda: client.read_coils(2, count=5, **to)),
        ("1 one", lambda: client.read_coils(4, count=1, **to)),
        ("2", lambda: client.read_discrete_inputs(0, count=8, **to)),
        ("4", lambda: client.read_input_registers(10, count=30, **to)),
        ("6", lambda: client.write_register(42, 0xBEEF, **to)),
        ("3 one", lambda: client.read_holding_registers(42, count=1, **to)),
        ("16", lambda: client.write_registers(43, values, **to)),
        ("3", lambda: client.read_holding_registers(42, count=6, **to)),
        ("16 many", lambda: client.write_registers(42, most, **to)),
        ("3 many", lambda: client.read_holding_registers(42, count=57, **to)),
        ("22", lambda: client.mask_write_register(address=50, and_mask=0xF2, or_mask=0x25, **to)),
        ("3 masked", lambda: client.read_holding_registers(50, count=1, **to)),
        (
            "23",
            lambda: client.readwrite_registers(
                read_address=60, read_count=3, write_address=61, values=[7, 8], **to
            ),
        ),
        ("3 after 23", lambda: client.read_holding_registers(60, count=4, **to)),
        ("43/14 basic", lambda: client.read_device_information(read_code=1, object_id=0, **to)),
        ("43/14 one", lambda: client.read_device_information(read_code=4, object_id=1, **to)),
        ("8/0", lambda: client.diag_query_data(b"\x12\x34", **to)),
        ("7", lambda: client.read_exception_status(**to)),
        ("17", lambda: client.report_device_id(**to)),
        ("3 busy", lambda: client.read_holding_registers(99, count=1, **to)),
        ("3 beyond", lambda: client.read_holding_registers(98, count=10, **to)),
        ("1 beyond", lambda: client.read_coils(200, count=1, **to)),
        ("6 value", lambda: client.write_register(40, 2001, **to)),
        ("6 beyond", lambda: client.write_register(5000, 1, **to)),
        ("3 whole", lambda: client.read_holding_registers(42, count=50, **to)),
    ]


def summary(answer):
    if answer.isError():
        return {"function": answer.function_code, "exception": answer.exception_code}
    shown = {"function": answer.function_code, "unit": answer.dev_id}
    for key in ("bits", "registers", "message", "status", "identifier", "information"):
        if value := getattr(answer, key, None):
            shown[key] = plain(value)
    return shown


def plain(value):
    if isinstance(value, dict):
        return {str(key): plain(one) for key, one in value.items()}
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, list | tuple):
        return [plain(one) for one in value]
    return value


main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), *sys.argv[4:])
