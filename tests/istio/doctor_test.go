package istio

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"meshgate/tests/istio/manifest"
)

type finding struct{ Level, Check, Subject, What, Remedy string }

// doctor asks `meshgate doctor` about what a chart renders.
func doctor(t *testing.T, objects []manifest.Object) (findings []finding) {
	t.Helper()
	var documents []string
	for _, object := range objects {
		text, err := object.MarshalJSON()
		if err != nil {
			t.Fatal(err)
		}
		// The digest of the examples stands for one.
		documents = append(documents, strings.ReplaceAll(string(text), "sha256:0000", "sha256:1234"))
	}
	file := filepath.Join(t.TempDir(), "rendered.yaml")
	if err := os.WriteFile(file, []byte(strings.Join(documents, "\n---\n")), 0o600); err != nil {
		t.Fatal(err)
	}
	output, _ := exec.Command(meshgate(t), "doctor", "--json", "--manifests", file).Output()
	if err := json.Unmarshal(output, &findings); err != nil {
		t.Fatalf("%v\n%s", err, output)
	}
	return findings
}

func TestTheDoctorFindsEveryExampleOfTheChartHealthy(t *testing.T) {
	for name, values := range examples(t) {
		t.Run(name, func(t *testing.T) {
			// One example leaves it to others to refuse unsafe plugins, which is told as a warning.
			values["admission"] = map[string]any{"create": true}
			findings := doctor(t, mustRender(t, values))
			for _, found := range findings {
				if found.Level != "ok" {
					t.Error(found)
				}
			}
			if len(findings) == 0 {
				t.Error("it says nothing")
			}
		})
	}
}

func TestTheDoctorFindsWhatSomebodyChangedByHand(t *testing.T) {
	objects := mustRender(t, examples(t)["direct"])
	for _, object := range objects {
		if object.GetKind() == "WasmPlugin" {
			object.Object["spec"].(map[string]any)["failStrategy"] = "FAIL_OPEN"
		}
	}
	for _, found := range doctor(t, objects) {
		if found.Level == "error" && found.Check == "failure" && found.Remedy != "" {
			return
		}
	}
	t.Error("a plugin that fails open is not told")
}
