// Package golden is what a real control plane made of the examples, as it is kept in this folder: one
// file for each scenario.
package golden

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"sort"
	"strings"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"meshgate/tests/istio/manifest"
)

// File is one scenario's, made by a control plane with Istio's default settings: mTLS, metadata exchange
// and all. The resources are in protobuf's JSON form, each kind sorted by name.
type File struct {
	Scenario string `json:"scenario"`
	// Istio is the version of the control plane that made this.
	Istio string `json:"istio"`
	// Node is who the proxy said it is.
	Node string `json:"node"`
	// Examples is the Fingerprint of the files of istio/ from which it was made.
	Examples   string `json:"examples"`
	Listeners  []any  `json:"listeners"`
	Clusters   []any  `json:"clusters"`
	Routes     []any  `json:"routes"`
	Endpoints  []any  `json:"endpoints"`
	Extensions []any  `json:"extensions"`
}

// Read reads every file of a folder, by its scenario.
func Read(folder string) (map[string]File, error) {
	names, err := filepath.Glob(filepath.Join(folder, "*.json"))
	if err != nil {
		return nil, err
	}
	found := map[string]File{}
	for _, name := range names {
		text, err := os.ReadFile(name)
		if err != nil {
			return nil, err
		}
		var file File
		if err := json.Unmarshal(text, &file); err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		if want := strings.TrimSuffix(filepath.Base(name), ".json"); file.Scenario != want {
			return nil, fmt.Errorf("%s is of the scenario %q", name, file.Scenario)
		}
		found[file.Scenario] = file
	}
	return found, nil
}

// Scenario is what stands in istio/base and istio/NAME, as a cluster would have it after `kubectl
// apply` of both: an object of the second replaces its like of the first.
func Scenario(resources, name string) ([]manifest.Object, error) {
	all, err := manifest.ReadFolder(filepath.Join(resources, "base"))
	if err != nil {
		return nil, err
	}
	own, err := manifest.ReadFolder(filepath.Join(resources, name))
	if err != nil {
		return nil, err
	}
	for _, object := range own {
		replaced := false
		for index := range all {
			if identity(all[index]) == identity(object) {
				all[index], replaced = object, true
			}
		}
		if !replaced {
			all = append(all, object)
		}
	}
	return all, nil
}

func identity(object manifest.Object) string {
	return strings.Join([]string{object.GroupVersionKind().Group, object.GetKind(),
		object.GetNamespace(), object.GetName()}, "/")
}

// ReadByControlPlane says whether the control plane makes something of this object: Istio's own kinds
// and Services.
func ReadByControlPlane(object manifest.Object) bool {
	group := object.GroupVersionKind().Group
	return strings.HasSuffix(group, ".istio.io") || group == "" && object.GetKind() == "Service"
}

// Fingerprint changes with everything in the objects that the control plane reads, but for the
// module's address, which each user fills in.
func Fingerprint(objects []manifest.Object) (string, error) {
	var lines []string
	for _, object := range objects {
		if !ReadByControlPlane(object) {
			continue
		}
		copied := object.DeepCopy()
		unstructured.RemoveNestedField(copied.Object, "spec", "url")
		// Keys are sorted.
		text, err := json.Marshal(copied.Object)
		if err != nil {
			return "", err
		}
		lines = append(lines, string(text))
	}
	sort.Strings(lines)
	sum := sha256.Sum256([]byte(strings.Join(lines, "\n")))
	return hex.EncodeToString(sum[:]), nil
}
