package istio

import (
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"helm.sh/helm/v3/pkg/chart"
	"helm.sh/helm/v3/pkg/chart/loader"
	"helm.sh/helm/v3/pkg/chartutil"
	"helm.sh/helm/v3/pkg/engine"
	"helm.sh/helm/v3/pkg/lint"
	"helm.sh/helm/v3/pkg/lint/support"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"meshgate/tests/istio/manifest"
	"meshgate/tests/istio/schema"
)

const chartFolder = resources + "/chart"

const (
	release   = "meshgate"
	namespace = "game"
)

func examples(t *testing.T) map[string]chartutil.Values {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(chartFolder, "examples", "*.yaml"))
	if err != nil || len(files) == 0 {
		t.Fatalf("no examples of values: %v", err)
	}
	found := map[string]chartutil.Values{}
	for _, file := range files {
		values, err := chartutil.ReadValuesFile(file)
		if err != nil {
			t.Fatalf("%s: %v", file, err)
		}
		found[strings.TrimSuffix(filepath.Base(file), ".yaml")] = values
	}
	return found
}

// render is `helm template`: values checked against the chart's schema, then every template.
func render(values chartutil.Values) ([]manifest.Object, string, error) {
	loaded, err := loader.Load(chartFolder)
	if err != nil {
		return nil, "", err
	}
	capabilities := chartutil.DefaultCapabilities.Copy()
	options := chartutil.ReleaseOptions{Name: release, Namespace: namespace, Revision: 1, IsInstall: true}
	top, err := chartutil.ToRenderValues(loaded, values, options, capabilities)
	if err != nil {
		return nil, "", err
	}
	return renderTop(loaded, top)
}

func renderTop(loaded *chart.Chart, top chartutil.Values) ([]manifest.Object, string, error) {
	files, err := engine.Engine{Strict: true}.Render(loaded, top)
	if err != nil {
		return nil, "", err
	}
	var objects []manifest.Object
	notes := ""
	for name, text := range files {
		switch {
		case strings.HasSuffix(name, "NOTES.txt"):
			notes = text
		case strings.HasSuffix(name, ".yaml"):
			found, err := manifest.Parse(name, []byte(text))
			if err != nil {
				return nil, "", fmt.Errorf("%w\n%s", err, text)
			}
			objects = append(objects, found...)
		}
	}
	return objects, notes, nil
}

func mustRender(t *testing.T, values chartutil.Values) []manifest.Object {
	t.Helper()
	objects, _, err := render(values)
	if err != nil {
		t.Fatal(err)
	}
	return objects
}

func TestTheChartPassesHelmLintWithEveryExample(t *testing.T) {
	for name, values := range examples(t) {
		t.Run(name, func(t *testing.T) {
			for _, message := range lint.All(chartFolder, values, namespace, true).Messages {
				// An icon is for catalogues.
				if message.Severity > support.InfoSev {
					t.Error(message)
				}
			}
		})
	}
}

func TestEveryObjectOfTheChartIsWhatTheAPIServerTakes(t *testing.T) {
	catalogue, err := schema.New()
	if err != nil {
		t.Fatal(err)
	}
	for name, values := range examples(t) {
		objects := mustRender(t, values)
		policy := compile(t, append(objects, scenarios(t)[base]...))
		for _, object := range objects {
			t.Run(name+"/"+object.Title(), func(t *testing.T) {
				for _, wrong := range catalogue.Check(object.Unstructured) {
					t.Error(wrong)
				}
				if object.GetKind() == "WasmPlugin" {
					checkConfig(t, object)
					if messages, err := policy.Refuses(object.Unstructured); err != nil || len(messages) > 0 {
						t.Errorf("the admission policy refuses it: %q %v", messages, err)
					}
				}
			})
		}
	}
}

func TestTheChartsListenersWithoutTheFilterLeadNowhere(t *testing.T) {
	for name, values := range examples(t) {
		t.Run(name, func(t *testing.T) {
			objects := mustRender(t, values)
			for _, plugin := range objects {
				if plugin.GetKind() != "WasmPlugin" {
					continue
				}
				for _, match := range list(t, plugin.Object, "spec", "match") {
					if match["mode"] == "SERVER" {
						continue // The pods are the user's; NOTES says what they must not do.
					}
					for _, port := range list(t, match, "ports") {
						routeLeadsNowhere(t, objects, plugin, text(port["number"]))
					}
				}
			}
		})
	}
}

// What the filter is told of clusters exists in the proxy by other objects of the chart.
func TestTheChartsClustersHaveTheirServices(t *testing.T) {
	for name, values := range examples(t) {
		t.Run(name, func(t *testing.T) {
			objects := mustRender(t, values)
			// Istio's clusters by their hosts, and those that an EnvoyFilter adds by their names.
			known := map[string]bool{values["upstream"].(map[string]any)["host"].(string): true}
			for _, object := range objects {
				switch object.GetKind() {
				case "Service":
					known[object.GetName()+"."+object.GetNamespace()+".svc.cluster.local"] = true
				case "ServiceEntry":
					found, _, _ := unstructured.NestedStringSlice(object.Object, "spec", "hosts")
					for _, host := range found {
						known[host] = true
					}
				case "EnvoyFilter":
					for _, patch := range list(t, object.Object, "spec", "configPatches") {
						if patch["applyTo"] == "CLUSTER" {
							name, _, _ := unstructured.NestedString(patch, "patch", "value", "name")
							known[name] = true
						}
					}
				}
			}
			for _, plugin := range objects {
				if plugin.GetKind() != "WasmPlugin" {
					continue
				}
				for _, path := range [][]string{{"companion", "cluster"}, {"upstream", "cluster"},
					{"upstream", "refusal_cluster"}} {
					path = append([]string{"spec", "pluginConfig"}, path...)
					cluster, found, _ := unstructured.NestedString(plugin.Object, path...)
					host := cluster[strings.LastIndex(cluster, "|")+1:]
					if found && !known[host] {
						t.Errorf("%s: nothing is called %s", strings.Join(path, "."), host)
					}
				}
			}
		})
	}
}

func TestCommandsBecomeRoutesWithSingleMethodsFirst(t *testing.T) {
	var rules []string
	for _, object := range mustRender(t, examples(t)["routed"]) {
		if object.GetKind() != "VirtualService" {
			continue
		}
		for _, rule := range list(t, object.Object, "spec", "http") {
			uri := list(t, rule, "match")[0]["uri"].(map[string]any)
			text := ""
			for how, path := range uri {
				text = fmt.Sprintf("%s %s:", how, path)
			}
			for _, route := range list(t, rule, "route") {
				to := route["destination"].(map[string]any)
				text += fmt.Sprintf(" %v:%v", to["host"], to["port"].(map[string]any)["number"])
				for _, more := range []any{to["subset"], route["weight"]} {
					if more != nil {
						text += fmt.Sprintf(" %v", more)
					}
				}
			}
			rules = append(rules, text)
		}
	}
	const game = " game.game.svc.cluster.local:50051"
	expected := []string{
		"exact /demo.v1.Hall/Move:" + game + " v1 95" + game + " v2 5",
		"exact /demo.v1.Hall/Say:" + game + " v1",
		"exact /demo.v1.Echo/Echo: echo.game.svc.cluster.local:50052",
		"prefix /demo.v1.Hall/:" + game + " v1",
		"exact /demo.v1.Legacy/Handle:" + game,
	}
	if !reflect.DeepEqual(rules, expected) {
		t.Errorf("found\n%s", strings.Join(rules, "\n"))
	}
}

func TestTheChartsAdmissionPolicyIsTheExamples(t *testing.T) {
	spec := func(objects []manifest.Object) any {
		for _, object := range objects {
			if object.GetKind() == "ValidatingAdmissionPolicy" {
				return object.Object["spec"]
			}
		}
		return nil
	}
	ours, theirs := spec(mustRender(t, examples(t)["direct"])), spec(scenarios(t)[base])
	if ours == nil || !reflect.DeepEqual(ours, theirs) {
		t.Errorf("%v\n%v", ours, theirs)
	}
}

func TestValuesThatCouldNotWorkAreRefusedByName(t *testing.T) {
	for name, wrong := range map[string]struct {
		change func(values map[string]any)
		says   string
	}{
		"nothing is set": {func(values map[string]any) { clear(values) }, "url"},
		"a tag in place of a digest": {func(values map[string]any) {
			values["filter"] = map[string]any{"url": "oci://registry.example/meshgate/filter:latest"}
		}, "url"},
		"a misspelt key": {func(values map[string]any) { values["gatway"] = map[string]any{} }, "gatway"},
		"the plugin's upstream by hand": {func(values map[string]any) {
			values["config"].(map[string]any)["upstream"] = map[string]any{"authority": "a"}
		}, "upstream"},
		"logins without a companion's image": {func(values map[string]any) {
			values["companion"] = map[string]any{}
		}, "repository"},
		"no commands": {func(values map[string]any) { values["commands"] = []any{} }, "commands"},
		"sidecars on the routed path": {func(values map[string]any) {
			values["upstream"].(map[string]any)["path"] = "routed"
			values["attach"] = map[string]any{"to": "workload",
				"workload": map[string]any{"labels": map[string]any{"a": "b"}, "serviceAccount": "c"}}
		}, "path"},
		"sidecars of every pod": {func(values map[string]any) {
			values["attach"] = map[string]any{"to": "workload"}
		}, "labels"},
		"TLS without a certificate": {func(values map[string]any) {
			values["gateway"] = map[string]any{"tls": map[string]any{"mode": "SIMPLE"}}
		}, "credentialName"},
		"replicas that share nothing": {func(values map[string]any) {
			values["companion"].(map[string]any)["replicas"] = 2
		}, "store"},
		"a Redis server without a name": {func(values map[string]any) {
			values["companion"].(map[string]any)["store"] = map[string]any{"kind": "redis"}
		}, "host"},
		"an app service without rights": {func(values map[string]any) {
			values["companion"].(map[string]any)["app"] = map[string]any{"callers": []any{"a/b"}}
		}, "grants"},
		"rights in the app service of nobody": {func(values map[string]any) {
			values["companion"].(map[string]any)["app"] = map[string]any{"grants": []any{"peer=* may=push"}}
		}, "callers"},
		"two routes of one method": {func(values map[string]any) {
			values["upstream"].(map[string]any)["path"] = "routed"
			values["commands"] = []any{
				map[string]any{"command": 1, "method": "/a.B/C"},
				map[string]any{"command": 2, "method": "/a.B/C", "route": []any{map[string]any{"host": "d"}}},
			}
		}, "/a.B/C has a route twice"},
	} {
		t.Run(name, func(t *testing.T) {
			values := examples(t)["direct"].AsMap()
			wrong.change(values)
			if _, _, err := render(values); err == nil || !strings.Contains(err.Error(), wrong.says) {
				t.Errorf("expected an error that names %q, found %v", wrong.says, err)
			}
		})
	}
}

// YAML readers and printers like to turn 1048576 into 1.048576e+06.
func TestLargeNumbersStayNumbers(t *testing.T) {
	values := examples(t)["direct"]
	values["proxy"] = map[string]any{"bufferLimit": 1048576.0}
	values["upstream"].(map[string]any)["maxConnections"] = 1000000.0
	values["companion"].(map[string]any)["settings"] = map[string]any{"login.total_burst": 1000000.0}
	values["test"].(map[string]any)["command"] = 1000001.0
	found := ""
	for _, object := range mustRender(t, values) {
		content, err := object.MarshalJSON()
		if err != nil {
			t.Fatal(err)
		}
		found += string(content)
	}
	for _, expected := range []string{`"per_connection_buffer_limit_bytes":1048576`,
		`"maxConnections":1000000`, `--set=login.total_burst=1000000"`, `--command=1000001"`} {
		if !strings.Contains(found, expected) {
			t.Errorf("%s is not there", expected)
		}
	}
}

func TestNotesSayHowToGoOn(t *testing.T) {
	for name, values := range examples(t) {
		_, notes, err := render(values)
		if err != nil {
			t.Fatal(err)
		}
		for _, word := range []string{"meshgate check", "port"} {
			if !strings.Contains(notes, word) {
				t.Errorf("%s: the notes do not say %q:\n%s", name, word, notes)
			}
		}
	}
}

func TestTheChartCarriesTheProjectsVersion(t *testing.T) {
	loaded, err := loader.Load(chartFolder)
	if err != nil {
		t.Fatal(err)
	}
	cargo, err := os.ReadFile(resources + "/../Cargo.toml")
	if err != nil {
		t.Fatal(err)
	}
	for _, version := range []string{loaded.Metadata.Version, loaded.Metadata.AppVersion} {
		if !strings.Contains(string(cargo), fmt.Sprintf("\nversion = %q\n", version)) {
			t.Errorf("Cargo.toml does not say %s", version)
		}
	}
}
