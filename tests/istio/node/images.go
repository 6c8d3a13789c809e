package node

import (
	"archive/tar"
	"compress/gzip"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"

	"github.com/opencontainers/image-spec/specs-go/v1"
)

// image is what a container starts from: files and empty folders at their places in it, and how it is run.
type image struct {
	Entrypoint []string          `json:"entrypoint"`
	User       string            `json:"user"`
	Files      map[string]string `json:"files"`
	folders    map[string]int
}

// images finds images by what a pod calls them: by the last part of the name those that this machine has
// programs for, and everything else in the layouts that scripts/image wrote.
type images struct {
	programs map[string]image
	layouts  string
	// Where layers are unpacked, a folder a manifest.
	unpacked string
	// One at a time unpacks.
	mutex sync.Mutex
}

func (i *images) find(reference string) (image, error) {
	i.mutex.Lock()
	defer i.mutex.Unlock()
	name := reference[strings.LastIndex(reference, "/")+1:]
	name, digest, pinned := strings.Cut(name, "@")
	name, tag, _ := strings.Cut(name, ":")
	if program, known := i.programs[name]; known {
		return program, nil
	}
	layout := filepath.Join(i.layouts, name)
	var index v1.Index
	if err := readJSON(filepath.Join(layout, "index.json"), &index); err != nil {
		return image{}, fmt.Errorf("image %s: %w", reference, err)
	}
	for _, manifest := range index.Manifests {
		if pinned && manifest.Digest.String() == digest || !pinned && manifest.Annotations[v1.AnnotationRefName] == tag {
			return i.unpack(layout, manifest)
		}
	}
	return image{}, fmt.Errorf("image %s: the layout %s has no such manifest", reference, layout)
}

func (i *images) unpack(layout string, descriptor v1.Descriptor) (image, error) {
	var manifest v1.Manifest
	var config v1.Image
	if err := readJSON(blob(layout, descriptor), &manifest); err != nil {
		return image{}, err
	}
	if err := readJSON(blob(layout, manifest.Config), &config); err != nil {
		return image{}, err
	}
	found := image{Entrypoint: config.Config.Entrypoint, User: config.Config.User,
		Files: map[string]string{}, folders: map[string]int{}}
	folder := filepath.Join(i.unpacked, descriptor.Digest.Encoded())
	for _, layer := range manifest.Layers {
		if err := found.add(blob(layout, layer), folder); err != nil {
			return image{}, err
		}
	}
	return found, nil
}

// add unpacks one layer, in which nothing but files and folders is expected.
func (i *image) add(layer, folder string) error {
	file, err := os.Open(layer)
	if err != nil {
		return err
	}
	defer file.Close()
	plain, err := gzip.NewReader(file)
	if err != nil {
		return err
	}
	archive := tar.NewReader(plain)
	for {
		header, err := archive.Next()
		if errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
		place := filepath.Join("/", header.Name)
		switch header.Typeflag {
		case tar.TypeDir:
			i.folders[place] = header.Uid
		case tar.TypeReg:
			into := filepath.Join(folder, place)
			i.Files[place] = into
			if _, err := os.Stat(into); err == nil {
				continue
			}
			if err := write(into, archive, os.FileMode(header.Mode)); err != nil {
				return err
			}
		default:
			return fmt.Errorf("%s: %s is neither file nor folder", layer, header.Name)
		}
	}
}

func write(path string, content io.Reader, mode os.FileMode) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	file, err := os.OpenFile(path+".part", os.O_CREATE|os.O_WRONLY|os.O_TRUNC, mode)
	if err != nil {
		return err
	}
	if _, err := io.Copy(file, content); err != nil {
		file.Close()
		return err
	}
	if err := file.Close(); err != nil {
		return err
	}
	return os.Rename(path+".part", path)
}

func blob(layout string, descriptor v1.Descriptor) string {
	return filepath.Join(layout, "blobs", descriptor.Digest.Algorithm().String(), descriptor.Digest.Encoded())
}

func readJSON(path string, into any) error {
	text, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	return json.Unmarshal(text, into)
}

// identity is the user and the group that the image wants to run as; 0 where it does not say.
func (i *image) identity() (user, group int64, err error) {
	if i.User == "" {
		return 0, 0, nil
	}
	first, second, both := strings.Cut(i.User, ":")
	if user, err = strconv.ParseInt(first, 10, 64); err != nil {
		return 0, 0, fmt.Errorf("user %q of an image", i.User)
	}
	if both {
		group, err = strconv.ParseInt(second, 10, 64)
	}
	return user, group, err
}
