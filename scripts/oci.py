"""Writes OCI image layouts, for `scripts/image`: the same input gives the same digest.

    oci.py SPECIFICATION OUT

SPECIFICATION is a JSON file:

    {"kind": "image" | "wasm-artifact",
     "version": "0.1.0",                 the reference's name in the layout
     "created": 1767225600,              seconds since the epoch, of every file and of the image
     "platform": {"os": "linux", "architecture": "amd64"},
     "labels": {…},                      org.opencontainers.image.*
     "files": {"/meshgate": "path"},     one layer; executable if the source is
     "folders": {"/data": 65532},        empty ones, with their owner
     "config": {"Entrypoint": […], …},   of the image configuration
     "sbom": "path"}                     CycloneDX

An image gets one layer (tar+gzip) and its SBOM as a referrer (OCI image specification 1.1,
`subject`). A wasm-artifact has two layers, the SBOM and then the module, as Istio's agent asks of
an artifact. Prints the digest of the manifest.

The compressed bytes are those of Python's zlib: another build of it may give another digest, of the
same content.
"""

import gzip
import hashlib
import io
import json
import os
import shutil
import sys
import tarfile
import time

INDEX = "application/vnd.oci.image.index.v1+json"
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
CONFIG = "application/vnd.oci.image.config.v1+json"
LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"
EMPTY = "application/vnd.oci.empty.v1+json"
SBOM = "application/vnd.cyclonedx+json"
WASM_CONFIG = "application/vnd.module.wasm.config.v1+json"
WASM_LAYER = "application/vnd.module.wasm.content.layer.v1+wasm"


def main(specification, out):
    with open(specification, encoding="utf-8") as file:
        wanted = json.load(file)
    part = out + ".part"
    shutil.rmtree(part, ignore_errors=True)
    os.makedirs(os.path.join(part, "blobs", "sha256"))
    layout = Layout(part)
    write = {"image": write_image, "wasm-artifact": write_artifact}[wanted["kind"]]
    manifests = write(layout, wanted)
    layout.finish(manifests)
    shutil.rmtree(out, ignore_errors=True)
    os.replace(part, out)
    print(manifests[0]["digest"])


class Layout:
    def __init__(self, folder):
        self.folder = folder

    def blob(self, media_type, content, **more):
        """Keeps the content and answers its descriptor."""
        digest = hashlib.sha256(content).hexdigest()
        with open(os.path.join(self.folder, "blobs", "sha256", digest), "wb") as file:
            file.write(content)
        return {"mediaType": media_type, "digest": f"sha256:{digest}", "size": len(content), **more}

    def json(self, media_type, value, **more):
        return self.blob(media_type, encoded(value), **more)

    def finish(self, manifests):
        index = {"schemaVersion": 2, "mediaType": INDEX, "manifests": manifests}
        for name, value in [("index.json", index), ("oci-layout", {"imageLayoutVersion": "1.0.0"})]:
            with open(os.path.join(self.folder, name), "wb") as file:
                file.write(encoded(value))


def encoded(value):
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def write_image(layout, wanted):
    tar = archive(wanted)
    created = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(wanted["created"]))
    config = layout.json(CONFIG, {
        **wanted["platform"],
        "created": created,
        "config": {**wanted.get("config", {}), "Labels": wanted["labels"]},
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{hashlib.sha256(tar).hexdigest()}"]},
        "history": [{"created": created, "created_by": "scripts/image"}],
    })
    layer = layout.blob(LAYER, compressed(tar))
    image = layout.json(MANIFEST, {
        "schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": [layer],
        "annotations": wanted["labels"],
    })
    subject = dict(image)
    image |= {"platform": wanted["platform"], "annotations": reference(wanted)}
    sbom = layout.json(MANIFEST, {
        "schemaVersion": 2, "mediaType": MANIFEST, "artifactType": SBOM,
        "config": layout.blob(EMPTY, b"{}"),
        "layers": [layout.blob(SBOM, content(wanted["sbom"]))],
        "subject": subject,
    }, artifactType=SBOM)
    return [image, sbom]


def write_artifact(layout, wanted):
    [module] = wanted["files"].values()
    title = "org.opencontainers.image.title"
    image = layout.json(MANIFEST, {
        "schemaVersion": 2, "mediaType": MANIFEST,
        "config": layout.blob(WASM_CONFIG, b"{}"),
        "layers": [
            layout.blob(SBOM, content(wanted["sbom"]), annotations={title: "sbom.cdx.json"}),
            layout.blob(WASM_LAYER, content(module), annotations={title: "plugin.wasm"}),
        ],
        "annotations": wanted["labels"],
    })
    return [image | {"annotations": reference(wanted)}]


def reference(wanted):
    return {"org.opencontainers.image.ref.name": wanted["version"]}


def archive(wanted):
    """A tar of the files and folders and all folders above them, in the order of their names."""
    entries = {}
    for path, owner in wanted.get("folders", {}).items():
        entries[path.strip("/")] = (None, owner)
    for path, source in wanted["files"].items():
        entries[path.strip("/")] = (source, 0)
    for path in list(entries):
        while path := os.path.dirname(path):
            entries.setdefault(path, (None, 0))
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for path, (source, owner) in sorted(entries.items()):
            entry = tarfile.TarInfo(path)
            entry.mtime, entry.uid, entry.gid = wanted["created"], owner, owner
            if source is None:
                entry.type, entry.mode = tarfile.DIRTYPE, 0o755
                tar.addfile(entry)
            else:
                data = content(source)
                entry.size, entry.mode = len(data), 0o755 if os.access(source, os.X_OK) else 0o644
                tar.addfile(entry, io.BytesIO(data))
    return out.getvalue()


def compressed(data):
    out = io.BytesIO()
    with gzip.GzipFile(filename="", fileobj=out, mode="wb", compresslevel=9, mtime=0) as file:
        file.write(data)
    return out.getvalue()


def content(path):
    with open(path, "rb") as file:
        return file.read()


if __name__ == "__main__":
    main(*sys.argv[1:])
