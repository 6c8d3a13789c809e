"""Finishes the Wasm module that cargo built, for `scripts/build`.

    wasm.py IN OUT LIMIT

Shortens the name section: a panic's back-trace in Envoy's log then says
`meshgate_filter::bridge::Bridge::forward` instead of a mangled symbol three times as long. Drops
the `producers` section. Fails if there is no name section or if OUT would be larger than LIMIT.

A module is a magic, a version, and sections: id u8, size LEB128, content; the content of a
section with id 0 begins with its name. The name section consists of subsections; number 1 maps
functions to names (WebAssembly 1.0, appendix "Name Section").
"""

import os
import re
import sys

CUSTOM, FUNCTION_NAMES = 0, 1


def main(source, target, limit):
    with open(source, "rb") as file:
        data = file.read()
    out, named = [data[:8]], False
    for number, content in sections(data, 8):
        if number == CUSTOM:
            name, start = text(content, 0)
            if name == "producers":
                continue
            if name == "name":
                named = True
                content = content[:start] + short_names(content[start:])
        out.append(section(number, content))
    out = b"".join(out)
    if not named:
        sys.exit(f"error: {source} has no name section: panics in Envoy's log would be unreadable")
    # Replaced in one go, so that an Envoy that starts meanwhile never reads half a file; and
    # before the check, so that a module that is too large can still be looked at.
    with open(target + ".part", "wb") as file:
        file.write(out)
    os.replace(target + ".part", target)
    if len(out) > limit:
        sys.exit(f"error: the filter has {len(out):,} bytes, more than the allowed {limit:,}")
    print(f"✓ filter: {len(out):,} bytes of {limit:,}, with names")


def short_names(content):
    """Only the names of functions are kept: an engine shows no others."""
    for number, names in sections(content, 0):
        if number == FUNCTION_NAMES:
            count, at = leb128(names, 0)
            out = [to_leb128(count)]
            for _ in range(count):
                index, at = leb128(names, at)
                name, at = text(names, at)
                name = short(name).encode()
                out += [to_leb128(index), to_leb128(len(name)), name]
            return section(FUNCTION_NAMES, b"".join(out))
    return b""


def short(symbol):
    """The path of a mangled Rust symbol, without hashes and type parameters."""
    if symbol.startswith("_ZN"):
        return ours(legacy_path(symbol))
    if symbol.startswith("_R"):
        return "::".join(identifiers(symbol[2:], r"(\d+)_?")[-3:])
    return symbol


def legacy_path(symbol):
    parts = [part for part in identifiers(symbol[3:], r"(\d+)") if not re.fullmatch("h[0-9a-f]{16}", part)]
    return "::".join(part for part in map(readable, parts) if part)


def readable(part):
    """`_$LT$impl$u20$a..b..Trait$u20$for$u20$c..Type$GT$` is `Type`; a closure is left out."""
    if "{closure" in part or "$u7b$" in part:
        return ""
    part = part.lstrip("_").replace("$LT$", "<").replace("$GT$", ">").replace("$u20$", " ")
    while re.search(r"<[^<>]*>$", part) and not part.startswith("<"):
        part = re.sub(r"<[^<>]*>$", "", part)
    if part.startswith("<"):
        inner = part.strip("<>")
        owner = inner.split(" for ")[-1].split(" as ")[0]
        part = re.sub(r"<.*", "", owner).removeprefix("impl ").split("..")[-1]
    return re.sub(r"\$\w+\$", "", part)


def ours(path):
    """The crate's name is what most symbols begin with, and is said by the module's own."""
    return path.removeprefix("meshgate_filter::")


def identifiers(text_, length):
    """What a mangled path names: each identifier follows its own length in decimal."""
    found, at = [], 0
    while match := re.compile(length).search(text_, at):
        end = match.end() + int(match.group(1))
        found.append(text_[match.end():end])
        at = end
    return found


# --- the binary format -----------------------------------------------------------------------


def sections(data, at):
    while at < len(data):
        number = data[at]
        size, at = leb128(data, at + 1)
        yield number, data[at:at + size]
        at += size


def section(number, content):
    return bytes([number]) + to_leb128(len(content)) + content


def text(data, at):
    length, at = leb128(data, at)
    return data[at:at + length].decode(), at + length


def leb128(data, at):
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 127) << shift
        shift += 7
        if byte < 128:
            return value, at


def to_leb128(value):
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    out.append(value)
    return bytes(out)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
