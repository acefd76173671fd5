#!/usr/bin/env python3
"""Prints what is in the `fieldlock` binary, as a CycloneDX 1.5 document (JSON).

    tests/sbom.py > fieldlock.cdx.json

Packages and versions as Cargo resolves them for this machine from Cargo.lock; hashes are those of
the packages as published.
"""

import json
import pathlib
import subprocess
import tomllib

ROOT = pathlib.Path(__file__).resolve().parent.parent
REGISTRY = "registry+https://github.com/rust-lang/crates.io-index"


def main():
    tree = subprocess.run(
        ["cargo", "tree", "-p", "fieldlock", "--locked", "--offline", "-e", "normal,build"]
        + ["--prefix", "none", "--no-dedupe", "--format", "{p}\t{l}"],
        cwd=ROOT, check=True, capture_output=True, text=True,
    ).stdout
    locked = tomllib.loads((ROOT / "Cargo.lock").read_text())["package"]
    locked = {(package["name"], package["version"]): package for package in locked}
    components = []
    for line in sorted(set(tree.splitlines())):
        name_and_version, license = line.split("\t")
        name, version = name_and_version.split()[:2]
        package = locked[(name, version.removeprefix("v"))]
        component = {
            "type": "library",
            "name": name,
            "version": package["version"],
            "licenses": [{"expression": license.replace("/", " OR ")}],
        }
        if package.get("source") == REGISTRY:
            component["purl"] = f"pkg:cargo/{name}@{package['version']}"
            component["hashes"] = [{"alg": "SHA-256", "content": package["checksum"]}]
        components.append(component)
    own = next(c for c in components if c["name"] == "fieldlock")
    components.remove(own)
    document = {
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "version": 1,
        "metadata": {"component": {**own, "type": "application"}},
        "components": components,
    }
    print(json.dumps(document, indent=1))


if __name__ == "__main__":
    main()
