# What is tried on the cluster. Sourced by scripts/istio-lab.

scenarios=(gateway-direct gateway-routed gateway-tls sidecar-inbound)

# --- what the API server takes, and what it refuses ------------------------------------------

# with_images FOLDER: a copy of istio/ whose images are the lab's, as command 3 of istio/README.md makes
# it.
with_images() {
  rm -rf "$1"
  cp -r "$root/istio" "$1"
  local name
  for name in filter companion demo-game; do
    sed -i "s|registry.example/meshgate/$name@sha256:0*|$registry/meshgate/$name@$(digest $name)|" "$1"/*/*.yaml "$1"/chart/examples/*.yaml
  done
}

digest() {
  python3 -c 'import json, sys; print(json.load(open(sys.argv[1]))["manifests"][0]["digest"])' \
    "$images/$1/index.json"
}

story_examples() {
  with_images "$place/istio"
  k apply --server-side --force-conflicts -f "$place/istio/base/namespaces.yaml" >/dev/null
  local scenario values
  for scenario in "${scenarios[@]}"; do
    k apply --server-side --dry-run=server --force-conflicts -f "$place/istio/base" -f "$place/istio/$scenario" >/dev/null
    say "✓ $scenario: the API server takes all of it"
  done
  for values in "$place"/istio/chart/examples/*.yaml; do
    h template meshgate "$place/istio/chart" --validate -n game -f "$values" >"$place/rendered.yaml"
    k apply --server-side --dry-run=server --force-conflicts -n game -f "$place/rendered.yaml" >/dev/null
    say "✓ values $(basename "$values"): the API server takes all of it"
  done
}

# Each line: what the refusal says, then what makes the plugin of gateway-direct unsafe, for python.
unsafe_plugins="FAIL_RELOAD|spec['failStrategy'] = 'FAIL_OPEN'
FAIL_RELOAD|del spec['failStrategy']
must begin with|spec.update(url='10.0.0.1:5000/meshgate', sha256='0' * 64)
pinned|spec['url'] = 'oci://registry.example/meshgate/filter:latest'
name its ports|del spec['match']
for which workloads|del spec['selector']
dead end|del spec['pluginConfig']['upstream']['cluster']
dead end|del spec['pluginConfig']"

story_admission() {
  k apply --server-side -f "$root/istio/base/namespaces.yaml" -f "$root/istio/base/admission.yaml" >/dev/null
  k apply --dry-run=client -o json -f "$root/istio/gateway-direct" >"$place/plugin.json"
  local says change refused
  # The policy is in force some time after it was written.
  began=$(tenths)
  until ! unsafe_plugin "spec['failStrategy'] = 'FAIL_OPEN'" >/dev/null 2>&1; do
    [ $(($(tenths) - began)) -lt 600 ] || fail "the admission policy refuses nothing after a minute"
    pause
  done
  while IFS='|' read -r says change; do
    refused=$(unsafe_plugin "$change" 2>&1) && fail "a plugin was taken in spite of: $change"
    grep -q "$says" <<<"$refused" || fail "the refusal of '$change' does not say '$says': $refused"
    say "✓ refused: $change"
  done <<<"$unsafe_plugins"
  unsafe_plugin pass >/dev/null
  say "✓ the example itself is taken"
}

unsafe_plugin() {
  python3 - "$place/plugin.json" "$1" <<'PY' | k apply --server-side --dry-run=server -f -
import json, sys
for item in json.load(open(sys.argv[1]))["items"]:
    if item["kind"] == "WasmPlugin":
        spec = item["spec"]
        exec(sys.argv[2])
        print(json.dumps(item))
PY
}

# --- playing a scenario ----------------------------------------------------------------------

# make_keys NAMESPACE: the companion's keys and the Secret with them, unless they are there.
make_keys() {
  keys=$place/keys-$1
  ! k -n "$1" get secret meshgate-keys >/dev/null 2>&1 || return 0
  rm -rf "$keys"
  mkdir -p "$keys"
  local meshgate=$native_bin/meshgate
  "$meshgate" keygen noise --id k1 --out "$keys/noise.json" >"$keys/noise-public.json" 2>/dev/null
  "$meshgate" keygen ticket-ed25519 --id t1 --out "$keys/ticket.json" >/dev/null 2>&1
  k -n "$1" create secret generic meshgate-keys --from-file="$keys/noise.json" \
    --from-file="$keys/ticket.json" --dry-run=client -o yaml | k apply -f - >/dev/null
}

ticket() {
  "$native_bin/meshgate" ticket issue --key "$keys/${2:-ticket}.json" --user "$1" --audience demo
}

play() {
  local scenario=$1
  with_images "$place/istio"
  k apply --server-side --force-conflicts -f "$place/istio/base/namespaces.yaml" >/dev/null
  make_keys meshgate
  prepare_"${scenario//-/_}"
  k apply --server-side --force-conflicts -f "$place/istio/base" -f "$place/istio/$scenario" >/dev/null
  step "$scenario: wait for its pods" pods_ready
  plugin_config "$scenario" >"$place/config.json"
  play_"${scenario//-/_}"
  k delete -f "$place/istio/$scenario" --wait >/dev/null
}

# What the API server holds now, as the last step of the README reads it.
plugin_config() {
  k get -f "$place/istio/$1" -o json | python3 -c '
import json, sys
for item in json.load(sys.stdin)["items"]:
    if item["kind"] == "WasmPlugin": print(json.dumps(item["spec"]["pluginConfig"]))'
}

pods_ready() {
  local each
  for each in statefulset/companion deployment/private-gateway; do
    k -n meshgate rollout status "$each" --timeout=180s
  done
  k -n game get deployments -o name | while read -r each; do
    k -n game rollout status "$each" --timeout=180s
  done
}

# listening PORT: the gateway has its listener, filter included.
listening() {
  eventually "the gateway listens on $1" accepts "$node_address" "$1"
}

# eventually WHAT CONDITION…: within two minutes; gateways take one to drain.
eventually() {
  local what=$1 began; shift
  began=$(tenths)
  until "$@" >/dev/null 2>&1; do
    [ $(($(tenths) - began)) -lt 1200 ] || fail "not within two minutes: $what" "the logs in .meshgate/run/pods"
    pause
  done
}

# Calls Whoami with a ticket.
call() {
  "$native_bin/meshgate" call --connect "$clients_connect_to:7000" --config "$place/config.json" \
    --noise-key "$keys/noise-public.json" --ticket "$1" --command 1104 \
    --proto "$root/tests/game/proto/demo/v1/demo.proto"
}

expect_user() {
  eventually "$1 calls" call_as "$1"
  known_as "$1"
  say "✓ $1 logged in by Noise, and the game knows who calls"
}

# Gateways get their configuration one after the other, so what the first call that went through was
# answered is what counts.
known_as() {
  grep -q "\"x-meshgate-user\": *\"$1\"" "$place/call.log" || fail "the game does not know the caller: $(cat "$place/call.log")"
}

call_as() { call "$(ticket "$1")" >"$place/call.log" 2>&1; }

# With a ticket of somebody else's making.
expect_refusal() {
  rm -f "$keys/forger.json"
  "$native_bin/meshgate" keygen ticket-ed25519 --id t1 --out "$keys/forger.json" >/dev/null 2>&1
  eventually "a forged ticket is refused, and told why" is_refused
  say "✓ a forged ticket is refused, and told why"
}

# By UNAUTHENTICATED, which is what nobody but the companion says.
is_refused() {
  ! call "$(ticket ann forger)" >"$place/call.log" 2>&1 && grep -q "status 16" "$place/call.log"
}

prepare_gateway_direct() { :; }

play_gateway_direct() {
  expect_user ann
  expect_refusal
}

# A second version of the game, as its operator would deploy one.
prepare_gateway_routed() {
  k apply --server-side --force-conflicts -f "$place/istio/base/game.yaml" >/dev/null
  k -n game get deployment game -o json | python3 -c '
import json, sys
game = json.load(sys.stdin)
game["metadata"] = {"name": "game-v2", "namespace": "game"}
game["spec"]["template"]["metadata"]["labels"]["version"] = "v2"
game["spec"]["selector"]["matchLabels"]["version"] = "v2"
del game["status"]
print(json.dumps(game))' | k apply -f - >/dev/null
}

play_gateway_routed() {
  expect_user ann
  expect_refusal
  expect_user tester
  heard "game-[0-9a-f]" ann && ! heard "game-[0-9a-f]" tester || fail "the old version did not get ann's call alone"
  heard game-v2 tester && ! heard game-v2 ann || fail "the new version did not get the tester's call alone"
  say "✓ ann's call went to the old version, the tester's to the new one"
}

heard() { grep -qs "x-meshgate-user=$2" "$run"/pods/game_$1*_game.log; }

prepare_gateway_tls() {
  openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=games.example \
    -addext subjectAltName=DNS:games.example -keyout "$keys/tls.key" -out "$keys/tls.pem" 2>/dev/null
  k -n meshgate create secret tls private-gateway-cert --cert="$keys/tls.pem" --key="$keys/tls.key" \
    --dry-run=client -o yaml | k apply -f - >/dev/null
}

play_gateway_tls() {
  # Speaks TLS for whoever connects.
  start lab-tunnel python3 -u -c '
import socket, ssl, sys, threading
def pump(a, b):
    try:
        while data := a.recv(65536): b.sendall(data)
        b.shutdown(socket.SHUT_WR)
    except OSError: b.close()
context = ssl.create_default_context(cafile=sys.argv[3])
server = socket.create_server(("127.0.0.1", 17443))
print("listening", flush=True)
while True:
    near = server.accept()[0]
    try: far = context.wrap_socket(socket.create_connection((sys.argv[1], int(sys.argv[2]))), server_hostname="games.example")
    except OSError as error: near.close(); continue
    for pair in ((near, far), (far, near)): threading.Thread(target=pump, args=pair, daemon=True).start()
' "$node_address" 7443 "$keys/tls.pem"
  wait_ready lab-tunnel says lab-tunnel listening
  eventually "ann calls through TLS" call_through_tls ann
  known_as ann
  say "✓ ann logged in by ticket inside TLS, and the game knows who calls"
  ! call_in_the_clear "$node_address:7443" --ticket "$(ticket ann)" 2>/dev/null || fail "7443 listens to those who speak no TLS"
  say "✓ without TLS nobody is heard"
  stop_programs lab-tunnel
}

call_through_tls() {
  call_in_the_clear 127.0.0.1:17443 --ticket "$(ticket "$1")" >"$place/call.log" 2>&1
}

# call_in_the_clear PLACE LOGIN…: frames are not sealed.
call_in_the_clear() {
  local place_to=$1; shift
  "$native_bin/meshgate" call --connect "$place_to" --config "$place/config.json" --command 1104 \
    --proto "$root/tests/game/proto/demo/v1/demo.proto" "$@"
}

prepare_sidecar_inbound() { :; }

play_sidecar_inbound() {
  local address
  address=$(pod_address game app=game)
  eventually "the pod's sidecar takes private frames" calls_the_pod
  say "✓ a caller without a login reaches the service in its own pod"
  # Somebody whose address the AuthorizationPolicy does not name.
  ip netns add stranger
  ip link add stranger type veth peer name eth0 netns stranger
  ip address add "$node_address/32" dev stranger
  ip link set stranger up
  ip route add 192.0.2.1 dev stranger
  ip -n stranger address add 192.0.2.1/32 dev eth0
  ip -n stranger link set eth0 up
  ip -n stranger route add "$node_address" dev eth0
  ip -n stranger route add default via "$node_address"
  local before after
  before=$(opened_upstream)
  grep -q 'meshgate-local.*cx_total::[1-9]' <<<"$before" || fail "the caller's own connection is not counted: $before"
  ! ip netns exec stranger "$native_bin/meshgate" call --connect "$address:7000" --config "$place/config.json" \
    --command 1104 --timeout 5s >/dev/null 2>&1 || fail "a stranger was served"
  after=$(opened_upstream)
  [ "$before" = "$after" ] || fail "the stranger opened connections: $before, then $after"
  say "✓ a stranger is refused, and opens no connection to the service"
  ip netns delete stranger
}

calls_the_pod() { call_in_the_clear "$address:7000"; }

pod_address() {
  k -n "$1" get pods -l "$2" --field-selector status.phase=Running -o jsonpath='{.items[0].status.podIP}'
}

# admin POD-ADDRESS PATH: what Envoy's admin interface says, which listens on the pod's loopback alone.
admin() {
  ip netns exec "$(sed -n "s/.* at $1 in //p" "$run/lab-node.log")" python3 -c '
import sys, urllib.request
print(urllib.request.urlopen("http://127.0.0.1:15000" + sys.argv[1], timeout=5).read().decode())' "$2"
}

# The connections that the sidecar ever opened to the server beside it, or to the dead end.
opened_upstream() {
  admin "$address" /clusters | grep -E '^(meshgate-local|inbound\|7000\|\|)::.*::cx_total::'
}

# --- the README's ten commands ---------------------------------------------------------------

# As they stand in istio/README.md, from the second on: the first builds what the lab has built. Where
# skopeo would push, the lab's registry has the images already.
story_commands() {
  local tree=$place/tree commands
  rm -rf "$tree"
  mkdir -p "$tree/.meshgate" "$tree/bin"
  cp -r "$root/istio" "$tree/istio"
  ln -s "$images" "$tree/.meshgate/images"
  ln -s "$root/tests" "$tree/tests"
  printf '#!/bin/sh\nexec "%s" --kubeconfig "%s" "$@"\n' "${program[kubectl]}" "$place/kubeconfig" >"$tree/bin/kubectl"
  printf '#!/bin/sh\ntest -f "${2#oci:}" || test -f "$(echo "${2#oci:}" | sed "s/:[^:]*$//")/index.json"\n' >"$tree/bin/skopeo"
  chmod +x "$tree/bin/kubectl" "$tree/bin/skopeo"
  commands=$(sed -n '/^## From a cluster with Istio/,/^## /{/^```sh/,/^```/p}' "$root/istio/README.md" | sed '/^```/d; 1,2{/# 1$/d}')
  grep -q '# 10$' <<<"$commands" || fail "istio/README.md has not ten commands"
  printf '%s\n' 'set -ex' "$commands" >"$tree/commands.sh"
  k delete namespace meshgate game --ignore-not-found --wait --timeout=120s >/dev/null
  step "the ten commands" env -C "$tree" PATH="$tree/bin:$native_bin:$PATH" REGISTRY="$registry" bash commands.sh
  grep -q '"x-meshgate-user": *"ann"' "$current_log" || fail "the last command was not answered"
  say "✓ the ten commands end with an answer from the service"
}
