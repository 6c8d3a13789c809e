# The chart's life on a cluster. Sourced by scripts/istio-lab.

release_namespace=game-edge

story_chart() {
  with_images "$place/istio"
  k apply --server-side --force-conflicts -f "$place/istio/base/namespaces.yaml" -f "$place/istio/base/game.yaml" >/dev/null
  k create namespace "$release_namespace" --dry-run=client -o yaml | k apply --server-side -f - >/dev/null
  k label namespace "$release_namespace" istio-injection=enabled --overwrite >/dev/null
  make_keys "$release_namespace"
  # A ticket for one test, in the Secret that the test's pod mounts.
  secret_for_test
  let_gateway_in

  chart_do install
  step "helm test" h test meshgate -n "$release_namespace" --timeout 2m
  say "✓ installed: the test's pod logged in and was answered"

  steady_client
  asks_steadily "before any change"

  local listeners
  listeners=$(drained)
  chart_do upgrade --set config.defaults.deadline=3s
  eventually "the new pluginConfig is what new connections get" new_logins_work
  asks_steadily "after another pluginConfig"
  [ "$(drained)" = "$listeners" ] || fail "a listener was drained: $listeners, then $(drained)"
  say "✓ another pluginConfig: no listener was changed or drained ($listeners)"

  local before
  before=$(k -n "$release_namespace" get pod meshgate-companion-0 -o jsonpath='{.metadata.uid}')
  chart_do upgrade --set config.defaults.deadline=3s --set companion.podAnnotations.rolled=once
  [ "$before" != "$(k -n "$release_namespace" get pod meshgate-companion-0 -o jsonpath='{.metadata.uid}')" ] ||
    fail "the companion was not rolled"
  asks_steadily "after the companion was rolled"
  eventually "logins work again" new_logins_work
  say "✓ the companion was rolled: who was logged in played on, and new logins work"

  step "helm rollback" h rollback meshgate 1 -n "$release_namespace" --wait --timeout 3m
  [ "$(k -n "$release_namespace" get wasmplugin meshgate -o jsonpath='{.spec.pluginConfig.defaults.deadline}')" = 2s ] ||
    fail "the rollback did not bring the first configuration back"
  asks_steadily "after the rollback"
  eventually "logins work after the rollback" new_logins_work
  say "✓ rolled back: the first configuration is there again"

  exec {steady_in}>&-
  stop_programs lab-steady
  step "helm uninstall" h uninstall meshgate -n "$release_namespace" --wait --timeout 2m
  eventually "nothing of the release is left" nothing_left
  say "✓ uninstalled: nothing is left but the claim of the store, which keeps sessions"
}

# The game believes its callers' word about users from gateways that it knows: now from this one too.
let_gateway_in() {
  k -n game patch authorizationpolicy game --type json -p '[{"op": "add",
    "path": "/spec/rules/0/from/0/source/principals/-",
    "value": "cluster.local/ns/'"$release_namespace"'/sa/meshgate-gateway"}]' >/dev/null
}

# chart_do install|upgrade ARGUMENTS…
chart_do() {
  local what=$1; shift
  step "helm $what $*" h "$what" meshgate "$place/istio/chart" -n "$release_namespace" \
    -f "$place/istio/chart/examples/direct.yaml" \
    --set companion.image.repository="$registry/meshgate/companion" \
    --set companion.image.digest="$(digest companion)" --wait --timeout 3m "$@"
  k -n "$release_namespace" get wasmplugin meshgate -o jsonpath='{.spec.pluginConfig}' >"$place/config.json"
  clients_connect_to=$(k -n "$release_namespace" get service meshgate-gateway \
    -o jsonpath='{.status.loadBalancer.ingress[0].ip}{.status.loadBalancer.ingress[0].hostname}')
}

secret_for_test() {
  ticket ann >"$keys/ticket"
  k -n "$release_namespace" create secret generic meshgate-test --from-file="$keys/ticket" \
    --from-file="$keys/noise-public.json" --dry-run=client -o yaml | k apply -f - >/dev/null
}

new_logins_work() { call_as ann && known_as ann; }

# A client that stays logged in; it calls once for each line that it gets.
steady_client() {
  eventually "ann logs in" new_logins_work
  rm -f "$place/steady"
  mkfifo "$place/steady"
  start lab-steady sh -c 'exec "$@" <"$0"' "$place/steady" "$native_bin/steady-client" \
    "$clients_connect_to:7000" "$(ticket steady)" "$keys/noise-public.json" k1
  exec {steady_in}>"$place/steady"
  wait_ready lab-steady says lab-steady ready
  answers_heard=0
}

# asks_steadily WHEN: the connection that was there from the start still carries calls.
asks_steadily() {
  echo >&"$steady_in"
  answers_heard=$((answers_heard + 1))
  eventually "the steady client is answered $1" answered "$answers_heard"
  tail -n 1 "$run/lab-steady.log" | grep -qx "user steady" || fail "$1 the steady client heard: $(tail -n 1 "$run/lab-steady.log")"
}

answered() { [ "$(grep -vc ready "$run/lab-steady.log")" -ge "$1" ]; }

# What has happened to the listeners of the gateways; on somebody else's cluster nobody looks.
drained() {
  [ -z "$kubeconfig" ] || { echo "not looked at"; return; }
  k -n "$release_namespace" get pods -l app.kubernetes.io/component=private-gateway \
    -o jsonpath='{range .items[*]}{.status.podIP}{"\n"}{end}' | sort | while read -r address; do
    admin "$address" '/stats?filter=^listener_manager\.(listener_modified|listener_removed|total_listeners_draining|total_filter_chains_draining)$'
  done | tr -s '\n' ' '
}

nothing_left() {
  [ -z "$(k -n "$release_namespace" get all,wasmplugin,gateway.networking.istio.io,virtualservice,envoyfilter,destinationrule,serviceentry -l app.kubernetes.io/instance=meshgate -o name)" ] &&
    ! k get validatingadmissionpolicy "meshgate-$release_namespace" 2>/dev/null
}

# Two companions that share a Redis server.
story_replicas() {
  with_images "$place/istio"
  k apply --server-side --force-conflicts -f "$place/istio/base/namespaces.yaml" -f "$place/istio/base/game.yaml" >/dev/null
  k create namespace "$release_namespace" --dry-run=client -o yaml | k apply --server-side -f - >/dev/null
  k label namespace "$release_namespace" istio-injection=enabled --overwrite >/dev/null
  make_keys "$release_namespace"
  let_gateway_in
  echo -n secret >"$place/password"
  k -n "$release_namespace" create secret generic meshgate-redis --from-file="$place/password" \
    --dry-run=client -o yaml | k apply -f - >/dev/null
  start lab-redis "$("$root/scripts/redis" --path)" --bind "$node_address" --port 6379 --requirepass secret --save ''
  wait_ready lab-redis accepts "$node_address" 6379
  k -n "$release_namespace" delete statefulset meshgate-companion --ignore-not-found --wait >/dev/null
  step "helm install with replicas" h upgrade --install meshgate "$place/istio/chart" -n "$release_namespace" \
    -f "$place/istio/chart/examples/replicas.yaml" --wait --timeout 3m --set companion.replicas=2 \
    --set companion.store.redis.host="$node_address" \
    --set companion.image.repository="$registry/meshgate/companion" \
    --set companion.image.digest="$(digest companion)"
  k -n "$release_namespace" get wasmplugin meshgate -o jsonpath='{.spec.pluginConfig}' >"$place/config.json"
  steady_client
  k -n "$release_namespace" delete pod meshgate-companion-0 --wait=false >/dev/null
  asks_steadily "while a companion goes"
  eventually "logins work while one companion is away" new_logins_work
  k -n "$release_namespace" delete pod meshgate-companion-1 --wait=false >/dev/null
  asks_steadily "while the other goes"
  eventually "logins work" new_logins_work
  say "✓ each of two companions went and came: the client that was there played on, logins work"
  exec {steady_in}>&-
  stop_programs lab-steady
  step "helm uninstall" h uninstall meshgate -n "$release_namespace" --wait --timeout 2m
  stop_programs lab-redis
}
