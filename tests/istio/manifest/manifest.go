// Package manifest reads Kubernetes objects from YAML as `kubectl apply` would.
package manifest

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sort"
	"strings"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	utilyaml "k8s.io/apimachinery/pkg/util/yaml"
	"sigs.k8s.io/yaml"
)

// Object is one document, and where it stands.
type Object struct {
	*unstructured.Unstructured
	Source string
}

// Title names the object in a test's output.
func (o Object) Title() string {
	return fmt.Sprintf("%s/%s", o.GetKind(), o.GetName())
}

// ReadFolder reads every .yaml file of a folder, in the order of their names.
func ReadFolder(folder string) ([]Object, error) {
	files, err := filepath.Glob(filepath.Join(folder, "*.yaml"))
	if err != nil {
		return nil, err
	}
	sort.Strings(files)
	var all []Object
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			return nil, err
		}
		found, err := Parse(file, text)
		if err != nil {
			return nil, err
		}
		all = append(all, found...)
	}
	if len(all) == 0 {
		return nil, fmt.Errorf("%s holds no object", folder)
	}
	return all, nil
}

// Parse reads the documents of a file; a key that stands twice is an error. Empty documents (what a
// template leaves that is switched off) are passed over.
func Parse(source string, text []byte) ([]Object, error) {
	var all []Object
	documents := utilyaml.NewYAMLReader(bufio.NewReader(bytes.NewReader(text)))
	for {
		document, err := documents.Read()
		if errors.Is(err, io.EOF) {
			return all, nil
		}
		if err != nil {
			return nil, fmt.Errorf("%s: %w", source, err)
		}
		content, err := yaml.YAMLToJSONStrict(document)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", source, err)
		}
		if strings.TrimSpace(string(content)) == "null" {
			continue
		}
		object := &unstructured.Unstructured{}
		if err := object.UnmarshalJSON(content); err != nil {
			return nil, fmt.Errorf("%s: %w", source, err)
		}
		all = append(all, Object{Unstructured: object, Source: source})
	}
}

// Config is a WasmPlugin's pluginConfig as the filter gets it.
func (o Object) Config() ([]byte, error) {
	config, found, err := unstructured.NestedMap(o.Object, "spec", "pluginConfig")
	if err != nil {
		return nil, err
	}
	if !found {
		return nil, fmt.Errorf("%s has no pluginConfig", o.Title())
	}
	return json.Marshal(config)
}
