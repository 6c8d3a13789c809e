package istio

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	specs "github.com/opencontainers/image-spec/specs-go/v1"
)

// The inside of the images stands in for the real, so that nothing is compiled here.
var insides = map[string][]byte{
	"filter":    []byte("\x00asm\x01\x00\x00\x00 stand-in"),
	"companion": []byte("#!/bin/sh\necho stand-in\n"),
}

// buildImages writes the layouts into a new folder.
func buildImages(t *testing.T) string {
	t.Helper()
	folder := t.TempDir()
	arguments := []string{"--out", filepath.Join(folder, "out")}
	for name, content := range insides {
		file := filepath.Join(folder, name)
		if err := os.WriteFile(file, content, 0o755); err != nil {
			t.Fatal(err)
		}
		arguments = append(arguments, "--"+name, file)
	}
	arguments = append(arguments, "filter", "filter-artifact", "companion")
	script, err := filepath.Abs("../../scripts/image")
	if err != nil {
		t.Fatal(err)
	}
	if output, err := exec.Command(script, arguments...).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, output)
	}
	return filepath.Join(folder, "out")
}

func TestImages(t *testing.T) {
	first, second := buildImages(t), buildImages(t)
	for _, name := range []string{"filter", "filter-artifact", "companion"} {
		t.Run(name+"/is the same twice", func(t *testing.T) {
			a, b := read(t, first, name, "index.json"), read(t, second, name, "index.json")
			if !bytes.Equal(a, b) {
				t.Errorf("%s\n%s", a, b)
			}
		})
		t.Run(name+"/is whole", func(t *testing.T) {
			layout := open(t, first, name)
			for _, manifest := range layout.index.Manifests {
				layout.walk(manifest)
			}
			files, err := os.ReadDir(filepath.Join(layout.folder, "blobs", "sha256"))
			if err != nil || len(files) != len(layout.seen) {
				t.Errorf("%d blobs, %d of them used: %v", len(files), len(layout.seen), err)
			}
		})
		t.Run(name+"/says what it is made of", func(t *testing.T) {
			layout := open(t, first, name)
			found := 0
			for blob, kind := range layout.kinds() {
				if kind != "application/vnd.cyclonedx+json" {
					continue
				}
				var sbom struct {
					BomFormat  string
					Components []struct{ Name string }
					Metadata   struct{ Component struct{ Name string } }
				}
				if err := json.Unmarshal(blob(), &sbom); err != nil {
					t.Fatal(err)
				}
				found++
				names := fmt.Sprint(sbom.Components)
				if sbom.BomFormat != "CycloneDX" || !strings.HasPrefix(sbom.Metadata.Component.Name, "meshgate-") ||
					!strings.Contains(names, "{prost}") || strings.Contains(names, "{proptest}") {
					t.Errorf("%s of %s: %s", sbom.BomFormat, sbom.Metadata.Component.Name, names)
				}
			}
			if found != 1 {
				t.Errorf("%d lists", found)
			}
		})
	}

	// The two forms of a module that Istio's agent takes.
	t.Run("filter/has plugin.wasm in its last layer", func(t *testing.T) {
		layout := open(t, first, "filter")
		manifest := layout.manifest(layout.index.Manifests[0])
		last := manifest.Layers[len(manifest.Layers)-1]
		if last.MediaType != specs.MediaTypeImageLayerGzip {
			t.Errorf("the last layer is %s", last.MediaType)
		}
		if found := files(t, layout.blob(last))["plugin.wasm"]; !bytes.Equal(found.content, insides["filter"]) {
			t.Errorf("%q", found.content)
		}
	})
	t.Run("filter-artifact/has two layers, one of them the module", func(t *testing.T) {
		layout := open(t, first, "filter-artifact")
		manifest := layout.manifest(layout.index.Manifests[0])
		if len(manifest.Layers) != 2 {
			t.Fatalf("%d layers", len(manifest.Layers))
		}
		module := manifest.Layers[1]
		if module.MediaType != "application/vnd.module.wasm.content.layer.v1+wasm" ||
			!bytes.Equal(layout.blob(module), insides["filter"]) {
			t.Errorf("%v", module)
		}
	})
	t.Run("companion/runs without rights", func(t *testing.T) {
		layout := open(t, first, "companion")
		manifest := layout.manifest(layout.index.Manifests[0])
		var image specs.Image
		if err := json.Unmarshal(layout.blob(manifest.Config), &image); err != nil {
			t.Fatal(err)
		}
		inside := files(t, layout.blob(manifest.Layers[0]))
		program := inside[strings.TrimPrefix(image.Config.Entrypoint[0], "/")]
		if image.Config.User != "65532:65532" || program.mode != 0o755 || program.owner != 0 {
			t.Errorf("user %q, program %+v", image.Config.User, program)
		}
		if store := inside["var/lib/meshgate"]; store.owner != 65532 {
			t.Errorf("the store's folder belongs to %d", store.owner)
		}
		for _, label := range []string{"version", "revision", "licenses", "title"} {
			if image.Config.Labels["org.opencontainers.image."+label] == "" {
				t.Errorf("no label %s", label)
			}
		}
	})
}

type layout struct {
	t      *testing.T
	folder string
	index  specs.Index
	seen   map[string]bool
}

func open(t *testing.T, folder, name string) *layout {
	t.Helper()
	opened := &layout{t: t, folder: filepath.Join(folder, name), seen: map[string]bool{}}
	if err := json.Unmarshal(read(t, folder, name, "index.json"), &opened.index); err != nil {
		t.Fatal(err)
	}
	return opened
}

func read(t *testing.T, path ...string) []byte {
	t.Helper()
	content, err := os.ReadFile(filepath.Join(path...))
	if err != nil {
		t.Fatal(err)
	}
	return content
}

// blob checks size and digest.
func (l *layout) blob(of specs.Descriptor) []byte {
	l.t.Helper()
	content := read(l.t, l.folder, "blobs", "sha256", of.Digest.Encoded())
	if int64(len(content)) != of.Size || fmt.Sprintf("%x", sha256.Sum256(content)) != of.Digest.Encoded() {
		l.t.Errorf("blob %s is not what its descriptor says", of.Digest)
	}
	l.seen[of.Digest.Encoded()] = true
	return content
}

func (l *layout) manifest(of specs.Descriptor) specs.Manifest {
	l.t.Helper()
	var manifest specs.Manifest
	if err := json.Unmarshal(l.blob(of), &manifest); err != nil {
		l.t.Fatal(err)
	}
	return manifest
}

func (l *layout) walk(of specs.Descriptor) {
	l.t.Helper()
	manifest := l.manifest(of)
	l.blob(manifest.Config)
	for _, layer := range manifest.Layers {
		l.blob(layer)
	}
	if manifest.Subject != nil && manifest.Subject.Digest != l.index.Manifests[0].Digest {
		l.t.Errorf("%s refers to %s", of.Digest, manifest.Subject.Digest)
	}
}

// kinds are all layers of all manifests by what gets their content, with their media types.
func (l *layout) kinds() func(yield func(func() []byte, string) bool) {
	return func(yield func(func() []byte, string) bool) {
		for _, of := range l.index.Manifests {
			for _, layer := range l.manifest(of).Layers {
				if !yield(func() []byte { return l.blob(layer) }, layer.MediaType) {
					return
				}
			}
		}
	}
}

type entry struct {
	content []byte
	mode    int64
	owner   int
}

func files(t *testing.T, layer []byte) map[string]entry {
	t.Helper()
	unpacked, err := gzip.NewReader(bytes.NewReader(layer))
	if err != nil {
		t.Fatal(err)
	}
	found := map[string]entry{}
	for archive := tar.NewReader(unpacked); ; {
		header, err := archive.Next()
		if errors.Is(err, io.EOF) {
			return found
		}
		if err != nil {
			t.Fatal(err)
		}
		content, err := io.ReadAll(archive)
		if err != nil {
			t.Fatal(err)
		}
		name := strings.TrimSuffix(header.Name, "/")
		found[name] = entry{content: content, mode: header.Mode, owner: header.Uid}
	}
}
