"""Finishes the Wasm module that cargo built, for `scripts/build`.

    wasm.py IN OUT LIMIT WASM_OPT

- Takes away the exports for HTTP filters, which the SDK has in every module, so that what only
  they need goes too.
- Runs wasm-opt, which makes the code a fifth smaller at the same speed.
- Shortens the name section: a panic's back-trace in Envoy's log then says `Bridge::forward`
  instead of a mangled symbol five times as long.

Fails if there is no name section or if OUT would be larger than LIMIT.

A module is a magic, a version, and sections: id u8, size LEB128, content; the content of a
section with id 0 begins with its name. The name section consists of subsections; number 1 maps
functions to names (WebAssembly 1.0, appendix "Name Section").
"""

import os
import re
import subprocess
import sys
import tempfile

CUSTOM, EXPORT, FUNCTION_NAMES = 0, 7, 1

# What Envoy calls for HTTP filters alone, and answers that the filter never asks for.
UNUSED_EXPORTS = re.compile("proxy_on_(request|response)_|proxy_on_foreign_function$")

# Small first. The features are those that rustc's target has and every Envoy since 1.36 knows.
WASM_OPT = [
    "-Oz",
    "--merge-similar-functions",
    "-g",
    "--mvp-features",
    *(
        f"--enable-{feature}"
        for feature in [
            "bulk-memory",
            "bulk-memory-opt",
            "call-indirect-overlong",
            "multivalue",
            "mutable-globals",
            "nontrapping-float-to-int",
            "reference-types",
            "sign-ext",
        ]
    ),
]


def main(source, target, limit, wasm_opt):
    with open(source, "rb") as file:
        module = with_names(optimised(pruned(file.read()), wasm_opt), source)
    # Replaced in one go, so that an Envoy that starts meanwhile never reads half a file; and
    # before the check, so that a module that is too large can still be looked at.
    with open(target + ".part", "wb") as file:
        file.write(module)
    os.replace(target + ".part", target)
    if len(module) > limit:
        sys.exit(f"error: the filter has {len(module):,} bytes, more than the allowed {limit:,}")
    print(f"✓ filter: {len(module):,} bytes of {limit:,}, with names")


def pruned(module):
    """The module without exports that nobody calls."""
    out = [module[:8]]
    for number, content in sections(module, 8):
        if number == EXPORT:
            count, at = leb128(content, 0)
            kept = []
            for _ in range(count):
                start = at
                name, at = text(content, at)
                _, at = leb128(content, at + 1)
                if not UNUSED_EXPORTS.match(name):
                    kept.append(content[start:at])
            content = to_leb128(len(kept)) + b"".join(kept)
        out.append(section(number, content))
    return b"".join(out)


def optimised(module, wasm_opt):
    with tempfile.TemporaryDirectory() as folder:
        before, after = os.path.join(folder, "before.wasm"), os.path.join(folder, "after.wasm")
        with open(before, "wb") as file:
            file.write(module)
        subprocess.run([wasm_opt, *WASM_OPT, before, "-o", after], check=True)
        with open(after, "rb") as file:
            return file.read()


def with_names(module, source):
    """The module with readable names of its functions, and no other custom sections."""
    out, named = [module[:8]], False
    for number, content in sections(module, 8):
        if number == CUSTOM:
            name, start = text(content, 0)
            if name != "name":
                continue
            named = True
            content = content[:start] + short_names(content[start:])
        out.append(section(number, content))
    if not named:
        sys.exit(f"error: {source} has no name section: panics in Envoy's log would be unreadable")
    return b"".join(out)


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
    """The end of a mangled Rust symbol's path, without hashes and type parameters."""
    if symbol.startswith("_ZN"):
        parts = identifiers(symbol[3:], r"(\d+)")
        parts = [readable(part) for part in parts if not re.fullmatch("h[0-9a-f]{16}", part)]
    elif symbol.startswith("_R"):
        # An underscore may stand between a length and its identifier.
        parts = [part for part in identifiers(symbol[2:], r"(\d+)_?") if part.isidentifier()]
    else:
        return symbol
    return "::".join([part for part in parts if part][-3:])


def readable(part):
    """`_$LT$impl$u20$a..b..Trait$u20$for$u20$c..Type$GT$` is `Type`; a closure is left out."""
    if "{closure" in part or "$u7b$" in part:
        return ""
    for code, sign in [("$LT$", "<"), ("$GT$", ">"), ("$u20$", " "), ("$RF$", "&"), ("$C$", ",")]:
        part = part.replace(code, sign)
    part = part.lstrip("_")
    if part.startswith("<"):
        # `<impl a::Type<T>>`, `<a::Type as b::Trait>`, `<impl b::Trait for a::Type>`
        part = part[1:].removeprefix("impl ").split(" for ")[-1].split(" as ")[0].lstrip("&")
    part = re.sub(r"[<>,].*", "", part)
    return re.sub(r"\$\w+\$", "", part.split("..")[-1])


# Disambiguators, back references, lifetimes and binders of a `_R` symbol are numbers of base 62
# that an underscore ends: what looks like a length in them is none.
NUMBER = re.compile("[sBLG][0-9A-Za-z]{0,13}_")


def identifiers(path, length):
    """What a mangled path names: each identifier follows its own length in decimal."""
    found, at = [], 0
    while at < len(path):
        if match := re.compile(length).match(path, at):
            at = match.end() + int(match[1])
            found.append(path[match.end():at])
        elif match := NUMBER.match(path, at):
            at = match.end()
        else:
            at += 1
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
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4])
