"""pnio_dcp, an engineering tool for DCP: `dcp_pnio.py IP COMMAND ARGUMENTS`, with the address of the
interface. Prints one line of JSON:

- `identify-all SECONDS`: the stations, as a list of name, MAC, address
- `name MAC`, `ip MAC`: what the station says
- `set-ip MAC ADDRESS MASK GATEWAY`, `set-name MAC NAME`, `reset MAC`: `"ok"`, `"refused"` with its
  code, or `"silence"`
"""

import json
import sys

from pnio_dcp import DCP, DcpTimeoutError


def stations(dcp, seconds):
    found = dcp.identify_all(timeout=float(seconds))
    return [[device.name_of_station, device.MAC, device.IP] for device in found]


def changed(act):
    try:
        code = act()
    except DcpTimeoutError:
        return "silence"
    return "ok" if code else f"refused: {code.code}"


COMMANDS = {
    "identify-all": stations,
    "name": lambda dcp, mac: dcp.get_name_of_station(mac),
    "ip": lambda dcp, mac: dcp.get_ip_address(mac),
    "set-ip": lambda dcp, mac, *suite: changed(lambda: dcp.set_ip_address(mac, list(suite))),
    "set-name": lambda dcp, mac, name: changed(lambda: dcp.set_name_of_station(mac, name)),
    "reset": lambda dcp, mac: changed(lambda: dcp.factory_reset(mac)),
}


def main():
    address, command, *arguments = sys.argv[1:]
    dcp = DCP(address)
    # A Set that is refused is met with silence.
    dcp.default_timeout = 1
    print(json.dumps(COMMANDS[command](dcp, *arguments)))


main()
