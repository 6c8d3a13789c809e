package istio

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"meshgate/tests/istio/manifest"
)

// Istio passes on what an EnvoyFilter says without reading it; a misspelt field is found by the
// proxy, or by nobody. Here a real Envoy reads it.
func TestEnvoyTakesEveryPatch(t *testing.T) {
	if envoy() == "" {
		t.Fatal("MESHGATE_ENVOY does not name an Envoy; scripts/test sets it")
	}
	all := scenarios(t)
	for name, values := range examples(t) {
		all["chart "+name] = mustRender(t, values)
	}
	for name, objects := range all {
		for _, object := range objects {
			if object.GetKind() != "EnvoyFilter" {
				continue
			}
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				if output, err := validate(t, patched(t, object)); err != nil {
					t.Errorf("%v\n%s", err, output)
				}
			})
		}
	}
}

func TestEnvoyRefusesAMisspeltPatch(t *testing.T) {
	for _, object := range scenarios(t)["gateway-direct"] {
		if object.GetKind() != "EnvoyFilter" {
			continue
		}
		text, err := object.MarshalJSON()
		if err != nil {
			t.Fatal(err)
		}
		changed := strings.ReplaceAll(string(text), "upstream_connect_mode", "upstream_connection_mode")
		objects, err := manifest.Parse("changed", []byte(changed))
		if err != nil {
			t.Fatal(err)
		}
		output, err := validate(t, patched(t, objects[0]))
		if err == nil || !strings.Contains(output, "upstream_connection_mode") {
			t.Errorf("%v\n%s", err, output)
		}
	}
}

func envoy() string { return os.Getenv("MESHGATE_ENVOY") }

func validate(t *testing.T, bootstrap map[string]any) (string, error) {
	t.Helper()
	content, err := json.Marshal(bootstrap)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "envoy.json")
	if err := os.WriteFile(file, content, 0o600); err != nil {
		t.Fatal(err)
	}
	output, err := exec.Command(envoy(), "--mode", "validate", "--log-level", "error", "-c", file).CombinedOutput()
	return string(output), err
}

// patched is a bootstrap with a listener for each patch, as plain as Envoy takes it, with the patch
// merged in.
func patched(t *testing.T, filter manifest.Object) map[string]any {
	t.Helper()
	var listeners []any
	clusters := []any{map[string]any{"name": "c", "connect_timeout": "1s"}}
	for index, patch := range list(t, filter.Object, "spec", "configPatches") {
		value, _, err := unstructured.NestedMap(patch, "patch", "value")
		if err != nil {
			t.Fatal(err)
		}
		name, _, _ := unstructured.NestedString(patch, "match", "listener", "filterChain", "filter", "name")
		network := plain(name)
		chain := map[string]any{}
		listener := map[string]any{
			"name": "patch",
			"address": map[string]any{"socket_address": map[string]any{
				"address": "127.0.0.1", "port_value": 20000 + index}},
		}
		switch patch["applyTo"] {
		case "NETWORK_FILTER":
			merge(network, value)
		case "FILTER_CHAIN":
			merge(chain, value)
		case "LISTENER":
			merge(listener, value)
		case "CLUSTER":
			clusters = append(clusters, value)
		default:
			t.Fatalf("nothing is known of %v", patch["applyTo"])
		}
		chain["filters"] = []any{network}
		listener["filter_chains"] = []any{chain}
		listeners = append(listeners, listener)
	}
	return map[string]any{"static_resources": map[string]any{
		"listeners": listeners,
		"clusters":  clusters,
	}}
}

func plain(name string) map[string]any {
	const types = "type.googleapis.com/envoy.extensions.filters."
	if name == "envoy.filters.network.http_connection_manager" {
		return map[string]any{"name": name, "typed_config": map[string]any{
			"@type":        types + "network.http_connection_manager.v3.HttpConnectionManager",
			"stat_prefix":  "p",
			"route_config": map[string]any{"name": "r"},
			"http_filters": []any{map[string]any{"name": "envoy.filters.http.router",
				"typed_config": map[string]any{"@type": types + "http.router.v3.Router"}}},
		}}
	}
	return map[string]any{"name": "envoy.filters.network.tcp_proxy", "typed_config": map[string]any{
		"@type": types + "network.tcp_proxy.v3.TcpProxy", "stat_prefix": "p", "cluster": "c"}}
}

// merge puts the patch into the value, object by object.
func merge(into, patch map[string]any) {
	for name, value := range patch {
		inner, isObject := into[name].(map[string]any)
		if change, alike := value.(map[string]any); isObject && alike {
			merge(inner, change)
		} else {
			into[name] = value
		}
	}
}
