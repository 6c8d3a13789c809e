# Programs that a script runs side by side: started, waited for, stopped. Sourced after lib.sh.
#
# Each has a name; .meshgate/run/NAME.log is its output, .meshgate/run/NAME.pid who it is. They are
# stopped in the reverse order of their start, when the script ends or by stop_programs.

run=$home/run
started=()
ready_seconds=30

# start NAME COMMAND…
start() {
  local name=$1; shift
  mkdir -p "$run"
  [ -x "$(command -v "$1")" ] || fail "$1 is missing" "scripts/build && scripts/envoy"
  # In a session of its own, so that Ctrl-C reaches this script alone, which then stops them in
  # order; and so that --keep outlives the terminal.
  setsid "$@" >"$run/$name.log" 2>&1 </dev/null &
  remember "$name" $!
  started+=("$name")
}

# A process id alone may belong to somebody else later; with the time of its start it cannot.
remember() { echo "$2 $(start_time "$2")" >"$run/$1.pid"; }
# Field 22 of /proc/PID/stat, counted behind the program's name, which may hold spaces; nothing
# for a program that has ended and only waits for its parent to notice (state Z).
start_time() { sed 's/.*) //' "/proc/$1/stat" 2>/dev/null | awk '$1 != "Z" { print $20 }'; }

# The process id of a program, if it still runs.
running() {
  local pid since
  read -r pid since 2>/dev/null <"$run/$1.pid" || return 1
  [ -n "$since" ] && [ "$(start_time "$pid")" = "$since" ] || return 1
  echo "$pid"
}

# wait_ready NAME CONDITION…: until the condition holds; fails at once if the program ends before,
# and after thirty seconds otherwise.
wait_ready() {
  local name=$1 began; shift
  began=$(tenths)
  until "$@" >/dev/null 2>&1; do
    running "$name" >/dev/null || not_ready "$name" "$name ended before it was ready"
    [ $(($(tenths) - began)) -lt $((ready_seconds * 10)) ] ||
      not_ready "$name" "$name was not ready within $ready_seconds seconds"
    pause
  done
  say "✓ $name is ready ($(seconds_since "$began")), log: ${run#"$root"/}/$name.log"
}

not_ready() {
  tail -n 30 "$run/$1.log" | sed 's/^/    /' >&2
  fail "$2" "its log is ${run#"$root"/}/$1.log"
}

# Conditions to wait for.
# says NAME TEXT: the program has printed a line with TEXT.
says() { grep -q -- "$2" "$run/$1.log"; }
# accepts HOST PORT: somebody takes connections there.
accepts() { (exec 3<>"/dev/tcp/$1/$2"); }
# answers URL: an HTTP GET gets a 2xx.
answers() {
  python3 -c 'import sys, urllib.request; urllib.request.urlopen(sys.argv[1], timeout=2)' "$1"
}

# port_free PORT PURPOSE: ends the script if another program holds a port that the bootstrap names.
port_free() {
  ! accepts 127.0.0.1 "$1" 2>/dev/null ||
    fail "port $1 ($2) is taken by another program" "stop that program; 'ss -ltnp' names it"
}

# A twentieth of a second between two looks at a condition.
pause() { read -rt 0.05 -u "$never" || true; }

# stop_programs [NAME…]: those that this script started, or the named ones. Asks first, insists after
# five seconds.
stop_programs() {
  local names=("$@") index name pid began
  [ $# -gt 0 ] || names=("${started[@]}")
  for ((index = ${#names[@]} - 1; index >= 0; index--)); do
    name=${names[index]}
    if pid=$(running "$name"); then
      kill "$pid" 2>/dev/null || true
      began=$(tenths)
      while running "$name" >/dev/null; do
        if [ $(($(tenths) - began)) -gt 50 ]; then
          say "$name did not stop when asked to: killed"
          kill -KILL "$pid" 2>/dev/null || true
          began=$(tenths)
        fi
        pause
      done
    fi
    rm -f "$run/$name.pid"
  done
  started=()
}

# Stops what an earlier run left behind with --keep.
stop_kept_programs() {
  local file names=()
  for file in "$run"/*.pid; do
    [ ! -e "$file" ] || names+=("$(basename "$file" .pid)")
  done
  [ ${#names[@]} -eq 0 ] || stop_programs "${names[@]}"
}
