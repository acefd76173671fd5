"""DCP as scapy reads the standard: `dcp_scapy.py INTERFACE NAME SECONDS` asks for the station NAME,
or with `all` for every station, and prints each answer within SECONDS as one line of JSON. For a
name it ends with the first.
"""

import json
import sys
import time

from scapy.arch import get_if_hwaddr
from scapy.contrib.pnio import ProfinetIO
from scapy.contrib.pnio_dcp import (
    DCPIPBlock,
    DCPNameOfStationBlock,
    ProfinetDCP,
)
from scapy.layers.l2 import Ether
from scapy.sendrecv import sendp, sniff

XID = 0x0F1E1D0C
IDENTIFY_REQUEST, IDENTIFY_RESPONSE = 0xFEFE, 0xFEFF


def request(interface, name):
    if name == "all":
        question = {"option": 255, "sub_option": 255, "dcp_data_length": 4}
    else:
        question = {
            "option": 2,
            "sub_option": 2,
            "dcp_block_length": len(name),
            "dcp_data_length": 4 + len(name),
            "name_of_station": name,
        }
    dcp = ProfinetDCP(service_id=5, service_type=0, xid=XID, reserved=1, **question)
    ether = Ether(src=get_if_hwaddr(interface), dst="01:0e:cf:00:00:00")
    return ether / ProfinetIO(frameID=IDENTIFY_REQUEST) / dcp


def is_answer(packet):
    return (
        ProfinetDCP in packet
        and packet[ProfinetIO].frameID == IDENTIFY_RESPONSE
        and packet[ProfinetDCP].xid == XID
    )


def show(packet, began):
    blocks = {type(block): block for block in packet[ProfinetDCP].dcp_blocks}
    name, ip = blocks[DCPNameOfStationBlock], blocks[DCPIPBlock]
    answer = {
        "mac": packet[Ether].src,
        "name": name.name_of_station.decode(),
        "ip": ip.ip,
        "after": float(packet.time) - began,
    }
    print(json.dumps(answer), flush=True)


def main():
    interface, name, seconds = sys.argv[1], sys.argv[2], float(sys.argv[3])
    began = time.time()
    answers = sniff(
        iface=interface,
        lfilter=is_answer,
        timeout=seconds,
        count=0 if name == "all" else 1,
        started_callback=lambda: sendp(request(interface, name), iface=interface, verbose=False),
    )
    for packet in answers:
        show(packet, began)


main()
