# A cluster on one machine, and Istio in it. Sourced by scripts/istio-lab.

token=lab-token
# The node's address, as tests/istio/node has it.
node_address=10.1.0.1
clients_connect_to=$node_address
discovery_chart=manifests/charts/istio-control/istio-discovery

k() { "${program[kubectl]}" --kubeconfig "$place/kubeconfig" "$@"; }
h() { "${program[helm]}" --kubeconfig "$place/kubeconfig" "$@"; }

# start_api: etcd, the API server, its controllers. The addresses of Services are 10.2.0.0/16.
start_api() {
  rm -rf "$place/etcd" "$place/pki"
  mkdir -p "$place/pki"
  [ -f "$place/sa.key" ] || openssl genrsa -out "$place/sa.key" 2048 2>/dev/null
  openssl rsa -in "$place/sa.key" -pubout -out "$place/sa.pub" 2>/dev/null
  echo "$token,admin,admin,system:masters" >"$place/tokens.csv"
  cat >"$place/kubeconfig" <<CONFIG
apiVersion: v1
kind: Config
current-context: lab
clusters: [{ name: lab, cluster: { server: "https://127.0.0.1:6443", insecure-skip-tls-verify: true } }]
contexts: [{ name: lab, context: { cluster: lab, user: lab } }]
users: [{ name: lab, user: { token: $token } }]
CONFIG
  start lab-etcd "${program[etcd]}" --data-dir "$place/etcd" --unsafe-no-fsync --log-level warn \
    --listen-client-urls http://127.0.0.1:2379 --advertise-client-urls http://127.0.0.1:2379 \
    --listen-peer-urls http://127.0.0.1:2380 --initial-advertise-peer-urls http://127.0.0.1:2380 \
    --initial-cluster default=http://127.0.0.1:2380
  wait_ready lab-etcd answers http://127.0.0.1:2379/readyz
  start lab-apiserver "${program[kube-apiserver]}" --etcd-servers=http://127.0.0.1:2379 \
    --bind-address=0.0.0.0 --secure-port=6443 --advertise-address="$node_address" \
    --cert-dir="$place/pki" --service-cluster-ip-range=10.2.0.0/16 --authorization-mode=RBAC \
    --token-auth-file="$place/tokens.csv" --service-account-issuer=https://kubernetes.default.svc \
    --service-account-key-file="$place/sa.pub" --service-account-signing-key-file="$place/sa.key" \
    --enable-aggregator-routing=true --allow-privileged=true
  wait_ready lab-apiserver k get --raw /readyz
  # What looks after nodes would take these for lost.
  start lab-controllers "${program[kube-controller-manager]}" --kubeconfig="$place/kubeconfig" \
    --service-account-private-key-file="$place/sa.key" --root-ca-file="$place/pki/apiserver.crt" \
    --leader-elect=false \
    --controllers='*,-node-lifecycle-controller,-pod-garbage-collector-controller,-taint-eviction-controller'
  say "· Kubernetes $(k get --raw /version | grep -o '"gitVersion": "[^"]*"' | cut -d '"' -f 4)"
  local file files=()
  while read -r file; do files+=(-f "$file"); done < <("$lab" crds)
  step "install the CRDs" k apply --server-side "${files[@]}"
  k wait --for condition=Established --timeout=60s crd --all >/dev/null
}

# start_cluster: the API and a node that runs what it holds.
start_cluster() {
  mkdir -p /run/netns
  mount -t tmpfs tmpfs /run/netns
  ip link set lo up
  start_api
  rm -rf "$place/state" "$run/pods"
  python3 - "${program[pilot-discovery]}" "${program[pilot-agent]}" "$("$root/scripts/envoy" --path)" \
    "$istio/tools/packaging/common/envoy_bootstrap.json" >"$place/programs.json" <<'PY'
import json, sys
discovery, agent, envoy, bootstrap = sys.argv[1:]
json.dump({
    "pilot": {"entrypoint": ["/usr/local/bin/pilot-discovery"], "user": "1337:1337",
              "files": {"/usr/local/bin/pilot-discovery": discovery}},
    "proxyv2": {"entrypoint": ["/usr/local/bin/pilot-agent"], "user": "1337:1337",
                "files": {"/usr/local/bin/pilot-agent": agent, "/usr/local/bin/envoy": envoy,
                          "/var/lib/istio/envoy/envoy_bootstrap_tmpl.json": bootstrap}},
}, sys.stdout)
PY
  start lab-node "$lab" node -server https://127.0.0.1:6443 -token "$token" -state "$place/state" \
    -logs "$run/pods" -images "$images" -programs "$place/programs.json" \
    -hosts "$node_address ${registry%:*}
"
  wait_ready lab-node says lab-node running
  start lab-registry "$lab" registry -images "$images" -listen "$node_address:${registry##*:}"
  wait_ready lab-registry says lab-registry listening
}

# install_istio: by Istio's own chart.
install_istio() {
  cat >"$place/istio-values.yaml" <<'VALUES'
global: { hub: lab, tag: lab, logging: { level: "default:info" } }
autoscaleEnabled: false
# What a stock Envoy does not have.
telemetry: { enabled: false }
env: { PILOT_ENABLE_METADATA_EXCHANGE: "false" }
meshConfig: { defaultConfig: { proxyMetadata: { PEER_METADATA_DISCOVERY: "false" } } }
VALUES
  step "install Istio" h upgrade --install istiod "$istio/$discovery_chart" --namespace istio-system \
    --create-namespace -f "$place/istio-values.yaml" --wait --timeout 3m
  "$lab" stock | k apply -f - >/dev/null
}

# --- capturing -------------------------------------------------------------------------------

# capture SCENARIO: a control plane, and of the pods no more than the API server knows.
capture() {
  local scenario=$1 namespace name status
  ip link set lo up
  ip address replace "$node_address/32" dev lo
  start_api
  k create namespace istio-system >/dev/null
  wait_ready lab-controllers k -n istio-system get serviceaccount default
  "$lab" objects "$scenario" >"$place/objects.json"
  k apply --server-side -f "$place/objects.json" >/dev/null
  "$lab" pods "$scenario" | while read -r namespace name status; do
    k -n "$namespace" patch pod "$name" --subresource status --type merge -p "$status" >/dev/null
  done
  wait_ready lab-controllers endpoints_are_there "$scenario"
  start lab-istiod env -C "$place" HOME="$place" "${program[pilot-discovery]}" discovery \
    --kubeconfig "$place/kubeconfig" --meshConfig /dev/null \
    --grpcAddr 127.0.0.1:15010 --httpAddr 127.0.0.1:8080 --monitoringAddr 127.0.0.1:15014 \
    --httpsAddr= --secureGRPCAddr= --ctrlz_port 0
  wait_ready lab-istiod answers http://127.0.0.1:8080/ready
  write_golden "$scenario" -discovery 127.0.0.1:15010 -debug http://127.0.0.1:8080
}

# endpoints_are_there SCENARIO: the controllers have seen every pod that a Service selects.
endpoints_are_there() {
  local namespace name status
  "$lab" pods "$1" | while read -r namespace name status; do
    k get endpointslices -A | grep -qF "$(grep -o '"podIP":"[^"]*"' <<<"$status" | cut -d '"' -f 4)" || return 1
  done
}

# write_golden SCENARIO SOURCE…
write_golden() {
  local scenario=$1; shift
  "$lab" capture "$scenario" -istio "$version" "$@" >"$place/$scenario.json"
  if cmp -s "$place/$scenario.json" "$golden/$scenario.json"; then
    say "✓ $scenario: as before"
  else
    mv "$place/$scenario.json" "$golden/$scenario.json"
    say "✓ $scenario: written to ${golden#"$root"/}/$scenario.json; git diff shows what changed"
  fi
}
