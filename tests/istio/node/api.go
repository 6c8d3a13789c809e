package node

import (
	"bytes"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"
)

// api is the Kubernetes API as far as a node needs it: plain requests, JSON both ways.
type api struct {
	server, token string
	http          *http.Client
}

// newAPI trusts whoever answers at the address: it is the lab's own server, on the same machine.
func newAPI(server, token string) *api {
	transport := &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}
	return &api{strings.TrimSuffix(server, "/"), token, &http.Client{Transport: transport, Timeout: 30 * time.Second}}
}

var errNotFound = errors.New("not found")

func (a *api) get(path string, into any) error { return a.ask(http.MethodGet, path, "", nil, into) }

func (a *api) post(path string, body, into any) error {
	return a.ask(http.MethodPost, path, "application/json", body, into)
}

// patch merges: lists are replaced as a whole.
func (a *api) patch(path string, body any) error {
	return a.ask(http.MethodPatch, path, "application/merge-patch+json", body, nil)
}

func (a *api) delete(path string, options any) error {
	return a.ask(http.MethodDelete, path, "application/json", options, nil)
}

func (a *api) ask(method, path, kind string, body, into any) error {
	var content io.Reader
	if body != nil {
		text, err := json.Marshal(body)
		if err != nil {
			return err
		}
		content = bytes.NewReader(text)
	}
	request, err := http.NewRequest(method, a.server+path, content)
	if err != nil {
		return err
	}
	request.Header.Set("Authorization", "Bearer "+a.token)
	request.Header.Set("Accept", "application/json")
	if kind != "" {
		request.Header.Set("Content-Type", kind)
	}
	response, err := a.http.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		return err
	}
	switch {
	case response.StatusCode == http.StatusNotFound:
		return fmt.Errorf("%s %s: %w", method, path, errNotFound)
	case response.StatusCode >= 300:
		return fmt.Errorf("%s %s: %s: %s", method, path, response.Status, text)
	case into == nil:
		return nil
	}
	return json.Unmarshal(text, into)
}
