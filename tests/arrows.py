"""Dependencies between our crates point down only.

Reads `cargo metadata`; fails on a crate that depends on one of its own ring or above, and on
a core that depends on an async runtime.
"""

import json
import sys

# Lowest first; a crate may depend on any ring below its own.
RINGS = [
    {"modbus", "profinet", "session", "pki", "audit", "capture", "sandbox", "signed", "status", "tls"},
    {"policy", "ca", "enroll", "rawsock"},
    {"conduit", "evidence", "learn"},
    {"transport", "sim"},
    {"agent"},
    {"edge", "headend"},
    {"fieldlock"},
]
CORES = {"modbus", "profinet", "session", "pki", "signed", "status", "policy", "conduit"}
SHELL_ONLY = {"tokio", "quinn", "rustls", "tokio-rustls", "tracing"}


def short(name):
    return name.removeprefix("fieldlock-")


ring = {name: level for level, names in enumerate(RINGS) for name in names}
wrong = []
for package in json.load(sys.stdin)["packages"]:
    name = short(package["name"])
    if name not in ring:
        continue
    for dependency in package["dependencies"]:
        if dependency["kind"] is not None:
            continue
        target = short(dependency["name"])
        if target in ring and ring[target] >= ring[name]:
            wrong.append(f"{name} depends on {target}: that arrow does not point down")
        if name in CORES and dependency["name"] in SHELL_ONLY:
            wrong.append(f"{name} is a core and depends on {dependency['name']}")
if wrong:
    sys.exit("\n".join(wrong))
print(f"{len(ring)} crates, all arrows point down")
