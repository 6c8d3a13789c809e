package main

import (
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"

	"github.com/opencontainers/image-spec/specs-go/v1"
)

// registry serves the layouts that scripts/image wrote, each by its own name, to whoever pulls: the
// part of the OCI distribution protocol that only reads.
type registry struct{ layouts string }

var pull = regexp.MustCompile(`^/v2/meshgate/([a-z0-9-]+)/(manifests|blobs)/([a-z0-9.:_-]+)$`)

// serve prints the address of the registry and serves for good.
func (r registry) serve(listen string) error {
	listener, err := net.Listen("tcp", listen)
	if err != nil {
		return err
	}
	fmt.Println("listening", listener.Addr())
	return http.Serve(listener, r)
}

func (r registry) ServeHTTP(writer http.ResponseWriter, request *http.Request) {
	if request.URL.Path == "/v2/" {
		return
	}
	wanted := pull.FindStringSubmatch(request.URL.Path)
	if wanted == nil {
		http.NotFound(writer, request)
		return
	}
	layout := filepath.Join(r.layouts, wanted[1])
	reference := wanted[3]
	kind := "application/octet-stream"
	if wanted[2] == "manifests" {
		manifest, err := manifestOf(layout, reference)
		if err != nil {
			http.Error(writer, err.Error(), http.StatusNotFound)
			return
		}
		reference, kind = manifest.Digest.String(), manifest.MediaType
		writer.Header().Set("Docker-Content-Digest", reference)
	}
	writer.Header().Set("Content-Type", kind)
	http.ServeFile(writer, request, filepath.Join(layout, "blobs", strings.ReplaceAll(reference, ":", "/")))
}

// manifestOf finds one by its digest or its tag.
func manifestOf(layout, reference string) (v1.Descriptor, error) {
	var index v1.Index
	text, err := os.ReadFile(filepath.Join(layout, "index.json"))
	if err != nil {
		return v1.Descriptor{}, err
	}
	if err := json.Unmarshal(text, &index); err != nil {
		return v1.Descriptor{}, err
	}
	for _, manifest := range index.Manifests {
		if manifest.Digest.String() == reference || manifest.Annotations[v1.AnnotationRefName] == reference {
			return manifest, nil
		}
	}
	return v1.Descriptor{}, fmt.Errorf("%s has no %s", layout, reference)
}
