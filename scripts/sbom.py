"""Lists what a program is made of, for `scripts/image`.

    sbom.py PACKAGE TARGET OUT

Writes CycloneDX 1.6 JSON: the crates that PACKAGE is built from on TARGET (its ordinary and build
dependencies with their features, no tests'), with licences, and with the checksums that Cargo.lock
pins. No time and no serial number, so that the same sources give the same file.
"""

import json
import subprocess
import sys
import tomllib

CRATES = "registry+https://github.com/rust-lang/crates.io-index"


def main(package, target, out):
    tree = run("cargo", "tree", "--locked", "-p", package, "--target", target, "-e", "normal,build",
               "--prefix", "none", "--format", "{p}")
    # A line is "name v1.2.3", then perhaps " (proc-macro)", the path of a crate of ours, " (*)".
    wanted = {tuple(line.split()[:2]) for line in tree.splitlines() if line.strip()}
    metadata = json.loads(run("cargo", "metadata", "--locked", "--format-version", "1"))
    with open("Cargo.lock", "rb") as file:
        lock = {(p["name"], p["version"]): p for p in tomllib.load(file)["package"]}
    parts, whole = [], None
    for crate in metadata["packages"]:
        if (crate["name"], f"v{crate['version']}") not in wanted:
            continue
        entry = component(crate, lock[crate["name"], crate["version"]])
        if crate["name"] == package:
            whole = entry | {"type": "application"}
        else:
            parts.append(entry)
    parts.sort(key=lambda entry: (entry["name"], entry["version"]))
    document = {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {"component": whole},
        "components": parts,
    }
    with open(out, "w", encoding="utf-8") as file:
        json.dump(document, file, indent=1, sort_keys=True, ensure_ascii=False)
        file.write("\n")


def component(crate, locked):
    name, version = crate["name"], crate["version"]
    entry = {"type": "library", "name": name, "version": version, "bom-ref": f"{name}@{version}"}
    if crate["license"]:
        # Crates of old write MIT/Apache-2.0 where SPDX says OR.
        entry["licenses"] = [{"expression": crate["license"].replace("/", " OR ")}]
    if locked.get("source") == CRATES:
        entry["purl"] = f"pkg:cargo/{name}@{version}"
        entry["hashes"] = [{"alg": "SHA-256", "content": locked["checksum"]}]
    return entry


def run(*command):
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout


if __name__ == "__main__":
    main(*sys.argv[1:])
