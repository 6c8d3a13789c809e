# Shared by every script here: where things are, and how a step is shown.
# Sourced, never run. A script says what it does in the comment at its top; --help prints that.

set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
# Everything that is downloaded or built for the project lives here; git ignores it.
home=$root/.meshgate
wasm=$home/meshgate.wasm
# One profile for all native programs, so that the demo, the tests and the CLI share one build.
native_bin=$root/target/debug

envoy_version=1.40.0
envoy=$home/envoy/$envoy_version/envoy
rust_release=$(sed -n 's/^channel = "\(.*\)"/\1/p' "$root/rust-toolchain.toml")

# --- showing ---------------------------------------------------------------------------------

heartbeat_seconds=10
lines_after_failure=40
current_step='' current_log='' heartbeat_pid=''

say() { printf '%s\n' "$*"; }

# fail MESSAGE [REMEDY]: ends the script.
fail() {
  printf 'error: %s\n' "$1" >&2
  [ $# -lt 2 ] || printf 'remedy: %s\n' "$2" >&2
  exit 1
}

# The comment block at the top of the calling script.
usage() { awk 'NR > 1 { if (!/^#/) exit; sub(/^# ?/, ""); print }' "$0"; }

# Tenths of a second since the epoch; EPOCHREALTIME's decimal mark depends on the locale.
tenths() { local micros=${EPOCHREALTIME//[!0-9]/}; echo $((micros / 100000)); }
seconds_since() { local t=$(($(tenths) - $1)); printf '%d.%d s' $((t / 10)) $((t % 10)); }

# step NAME COMMAND…: one line when it starts, one when it ends with the time it took, and while
# it runs one every ten seconds with the last thing it printed. Its output goes to
# .meshgate/log/; if it fails, the log's end is shown and the script ends.
# Do not call it where bash ignores errors (after if, &&, ||): see `attempt`.
step() {
  attempt "$@"
  [ "$step_status" -eq 0 ] || exit "$step_status"
}

# Like step, but leaves the verdict in $step_status; $current_log is its log.
attempt() {
  current_step=$1; shift
  mkdir -p "$home/log"
  current_log=$home/log/$(tr -cs 'a-zA-Z0-9.\n' '-' <<<"$current_step").log
  local began; began=$(tenths)
  printf '· %s\n' "$current_step"
  start_heartbeat "$began"
  set +e
  (set -e; "$@") >"$current_log" 2>&1
  step_status=$?
  set -e
  stop_heartbeat
  if [ "$step_status" -eq 0 ]; then
    printf '✓ %s (%s)\n' "$current_step" "$(seconds_since "$began")"
  else
    printf '✗ %s (%s, exit %d); the end of %s:\n' "$current_step" "$(seconds_since "$began")" \
      "$step_status" "${current_log#"$root"/}"
    tail -n "$lines_after_failure" "$current_log" | sed 's/^/    /'
  fi
}

# A pipe that nobody writes to: a timed read on it waits without a child that could outlive us.
quiet_pipe=$(mktemp -u)
mkfifo "$quiet_pipe"
exec {never}<>"$quiet_pipe"
rm "$quiet_pipe"

start_heartbeat() {
  local began=$1
  (
    while ! read -rt "$heartbeat_seconds" -u "$never"; do
      printf '  %s  %s\n' "$(seconds_since "$began")" \
        "$(tail -n 1 "$current_log" 2>/dev/null | tr -d '\r' | sed 's/\x1b\[[0-9;]*[mK]//g' | cut -c 1-90)"
    done
  ) &
  heartbeat_pid=$!
}

stop_heartbeat() {
  [ -n "$heartbeat_pid" ] || return 0
  kill "$heartbeat_pid" 2>/dev/null || true
  wait "$heartbeat_pid" 2>/dev/null || true
  heartbeat_pid=''
}

# What a script has to undo when it ends, however it ends. A script may define its own `at_exit`.
at_exit() { :; }
trap 'stop_heartbeat; at_exit' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

# --- getting ---------------------------------------------------------------------------------

has() { command -v "$1" >/dev/null 2>&1; }

# download URL FILE SHA256: nothing is left behind unless the hash is right.
download() {
  python3 - "$@" <<'PY'
import hashlib, os, shutil, sys, urllib.request
url, path, want = sys.argv[1:]
print("getting", url, flush=True)
try:
    with urllib.request.urlopen(url, timeout=30) as reply, open(path + ".part", "wb") as out:
        shutil.copyfileobj(reply, out)
except OSError as failure:
    sys.exit(f"cannot get it: {failure}")
got = hashlib.sha256(open(path + ".part", "rb").read()).hexdigest()
if got != want:
    os.remove(path + ".part")
    sys.exit(f"{url}: sha256 is {got}, expected {want}")
os.replace(path + ".part", path)
PY
}

# Is the standard library for a target there: in the toolchain, or in the project's own sysroot?
target_libraries() { rustc --print target-libdir --target "$1"; }
target_in_toolchain() { compgen -G "$(target_libraries "$1")/libstd-*.rlib" >/dev/null; }
