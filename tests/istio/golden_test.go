package istio

import (
	"encoding/json"
	"reflect"
	"strings"
	"testing"

	"meshgate/tests/istio/golden"
	"meshgate/tests/istio/manifest"
)

const goldenFolder = "golden"

const recapture = "the example was changed: capture it again (scripts/istio-lab --capture)"

func goldens(t *testing.T) map[string]golden.File {
	t.Helper()
	found, err := golden.Read(goldenFolder)
	if err != nil {
		t.Fatal(err)
	}
	return found
}

func TestEveryExampleHasItsGoldenFile(t *testing.T) {
	found := goldens(t)
	for name := range scenarios(t) {
		if _, captured := found[name]; !captured && name != base {
			t.Errorf("%s has no golden file", name)
		}
	}
}

func TestNoExampleWasChangedSinceItsCapture(t *testing.T) {
	for name, file := range goldens(t) {
		t.Run(name, func(t *testing.T) {
			objects, err := golden.Scenario(resources, name)
			if err != nil {
				t.Fatal(err)
			}
			print, err := golden.Fingerprint(objects)
			if err != nil {
				t.Fatal(err)
			}
			if print != file.Examples {
				t.Error(recapture)
			}
		})
	}
}

func TestTheFilterIsToldWhatTheExampleSays(t *testing.T) {
	for name, file := range goldens(t) {
		t.Run(name, func(t *testing.T) {
			plugin := onlyPlugin(t, scenarios(t)[name])
			text, err := plugin.Config()
			if err != nil {
				t.Fatal(err)
			}
			var written, told any
			if err := json.Unmarshal(text, &written); err != nil {
				t.Fatal(err)
			}
			if err := json.Unmarshal([]byte(configuration(t, file)), &told); err != nil {
				t.Fatal(err)
			}
			if !reflect.DeepEqual(written, told) {
				t.Error(recapture)
			}
		})
	}
}

func onlyPlugin(t *testing.T, objects []manifest.Object) manifest.Object {
	t.Helper()
	var found []manifest.Object
	for _, object := range objects {
		if object.GetKind() == "WasmPlugin" {
			found = append(found, object)
		}
	}
	if len(found) != 1 {
		t.Fatalf("%d plugins", len(found))
	}
	return found[0]
}

// configuration is the string that the filter gets.
func configuration(t *testing.T, file golden.File) string {
	t.Helper()
	if len(file.Extensions) != 1 {
		t.Fatalf("%d extension configurations", len(file.Extensions))
	}
	value := file.Extensions[0]
	for _, field := range []string{"typedConfig", "config", "configuration", "value"} {
		fields, _ := value.(map[string]any)
		value = fields[field]
	}
	text, isText := value.(string)
	if !isText {
		t.Fatal("the extension is no configuration of a filter")
	}
	return text
}

// The guard as the control plane made it: in front of every tcp_proxy of a private port stands the
// filter, and tcp_proxy's own cluster has no endpoint.
func TestTheFilterStandsBeforeADeadEnd(t *testing.T) {
	for name, file := range goldens(t) {
		t.Run(name, func(t *testing.T) {
			chains := 0
			for _, filters := range filtersWith(file.Listeners, "configDiscovery") {
				chains++
				last := filters[len(filters)-1].(map[string]any)
				before := filters[len(filters)-2].(map[string]any)
				if _, ours := before["configDiscovery"]; !ours {
					t.Errorf("%v stands between the filter and %v", before["name"], last["name"])
				}
				config, _ := last["typedConfig"].(map[string]any)
				cluster, _ := config["cluster"].(string)
				if !isDeadEnd(file, cluster) {
					t.Errorf("without the filter the port would lead to %s", cluster)
				}
			}
			if chains != 1 {
				t.Errorf("the filter stands in %d chains", chains)
			}
		})
	}
}

// isDeadEnd: a cluster without endpoints; or, in a sidecar, the private port of the pod itself, on which
// nothing listens.
func isDeadEnd(file golden.File, cluster string) bool {
	if strings.HasPrefix(cluster, "inbound|7000|") {
		return true
	}
	for _, each := range file.Endpoints {
		assignment := each.(map[string]any)
		if assignment["clusterName"] == cluster {
			return assignment["endpoints"] == nil
		}
	}
	return false
}

// filtersWith are the filters of every chain that has one with this field.
func filtersWith(value any, field string) [][]any {
	var found [][]any
	switch value := value.(type) {
	case map[string]any:
		for name, inner := range value {
			if filters, isList := inner.([]any); isList && name == "filters" {
				for _, filter := range filters {
					if _, has := filter.(map[string]any)[field]; has {
						found = append(found, filters)
					}
				}
			}
			found = append(found, filtersWith(inner, field)...)
		}
	case []any:
		for _, inner := range value {
			found = append(found, filtersWith(inner, field)...)
		}
	}
	return found
}
