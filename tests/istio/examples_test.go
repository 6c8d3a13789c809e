package istio

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"meshgate/tests/istio/manifest"
	"meshgate/tests/istio/schema"
)

const resources = "../../istio"

// base is what every scenario builds on.
const base = "base"

// scenarios are the folders of istio/ with examples.
func scenarios(t *testing.T) map[string][]manifest.Object {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(resources, "*", "*.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	found := map[string][]manifest.Object{}
	for _, file := range files {
		folder := filepath.Base(filepath.Dir(file))
		if folder == "chart" || found[folder] != nil {
			continue
		}
		objects, err := manifest.ReadFolder(filepath.Dir(file))
		if err != nil {
			t.Fatal(err)
		}
		found[folder] = objects
	}
	if len(found[base]) == 0 || len(found) < 2 {
		t.Fatalf("%s holds no examples", resources)
	}
	return found
}

func TestEveryObjectOfTheExamplesIsWhatTheAPIServerTakes(t *testing.T) {
	catalogue, err := schema.New()
	if err != nil {
		t.Fatal(err)
	}
	for scenario, objects := range scenarios(t) {
		for _, object := range objects {
			t.Run(scenario+"/"+object.Title(), func(t *testing.T) {
				for _, wrong := range catalogue.Check(object.Unstructured) {
					t.Error(wrong)
				}
			})
		}
	}
}

func TestNothingOfAScenarioStandsTwice(t *testing.T) {
	for scenario, objects := range scenarios(t) {
		seen := map[string]bool{}
		for _, object := range objects {
			name := object.GroupVersionKind().GroupKind().String() + object.GetNamespace() + object.Title()
			if seen[name] {
				t.Errorf("%s: %s stands twice", scenario, object.Title())
			}
			seen[name] = true
		}
	}
}

func TestEveryPluginConfigIsWhatTheFilterTakes(t *testing.T) {
	for scenario, objects := range scenarios(t) {
		for _, object := range objects {
			if object.GetKind() != "WasmPlugin" {
				continue
			}
			t.Run(scenario+"/"+object.GetName(), func(t *testing.T) { checkConfig(t, object) })
		}
	}
}

// checkConfig asks `meshgate check`, which reads as the filter does.
func checkConfig(t *testing.T, plugin manifest.Object) {
	t.Helper()
	config, err := plugin.Config()
	if err != nil {
		t.Fatal(err)
	}
	command := exec.Command(meshgate(t), "check", "-")
	command.Stdin = strings.NewReader(string(config))
	if output, err := command.CombinedOutput(); err != nil {
		t.Errorf("meshgate check: %v\n%s", err, output)
	}
}

// meshgate is the program that `scripts/build --native` builds, or the one that MESHGATE_BIN names.
func meshgate(t *testing.T) string {
	t.Helper()
	program := os.Getenv("MESHGATE_BIN")
	if program == "" {
		program = "../../target/debug/meshgate"
	}
	path, err := filepath.Abs(program)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(path); err != nil {
		t.Fatalf("%v: scripts/build --native", err)
	}
	return path
}
