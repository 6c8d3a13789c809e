# Shared by the four start scripts: sourced, never run.
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../../.." && pwd)
language=$(basename "$here")
place=$root/.meshgate/foreign/$language
mkdir -p "$place"

# need PROGRAM WHAT: exit code 77 is what test runners take for "skipped".
need() {
  command -v "$1" >/dev/null 2>&1 || {
    echo "skipped: $2 is not installed (no $1 on the PATH)" >&2
    exit 77
  }
}

# build_once SOURCE… : calls `build` unless it was done for these very files. Two at a time (tests
# run side by side) wait for each other.
build_once() {
  local stamp
  stamp=$(cat "$@" | sha256sum)
  exec 9>"$place/lock"
  flock 9
  if [ "$(cat "$place/built" 2>/dev/null)" != "$stamp" ]; then
    echo "building the $language server into ${place#"$root"/} (the first time takes up to a minute)" >&2
    rm -f "$place/built"
    (cd "$here" && build) >"$place/build.log" 2>&1 || {
      tail -n 30 "$place/build.log" >&2
      echo "the $language server could not be built: ${place#"$root"/}/build.log" >&2
      exit 1
    }
    echo "$stamp" >"$place/built"
  fi
  exec 9>&-
}

only_build() { [ "${1:-}" != --build ] || exit 0; }
