"""A client over TLS that asks and never reads: `deaf.py HOST PORT FOLDER`, with key.pem and bundle.pem
of FOLDER. Ends when the server takes no more for 30 s, or ends the connection.
"""

import socket
import ssl
import sys

# Read 57 holding registers of unit 1, many times, each with an id of its own.
REQUESTS = b"".join(id.to_bytes(2) + bytes.fromhex("00000006010300000039") for id in range(1000))


def main(host, port, folder):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.load_verify_locations(f"{folder}/bundle.pem")
    context.load_cert_chain(f"{folder}/bundle.pem", f"{folder}/key.pem")
    stream = context.wrap_socket(socket.create_connection((host, port)))
    stream.settimeout(30)
    print("connected", flush=True)
    try:
        while True:
            stream.sendall(REQUESTS)
    except OSError as error:
        print(error, flush=True)


main(sys.argv[1], int(sys.argv[2]), sys.argv[3])
