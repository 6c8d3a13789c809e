package main

import (
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"strings"
	"sync"
)

// apiServer stands in for a Kubernetes API server, as far as a control plane reads from one: it lists
// objects, and a watch of them never tells anything new. What is written is kept where it was put, so
// that whoever elects a leader or stores a certificate finds it again; nobody is told of it. There is
// no admission and no validation; the schema package does that.
type apiServer struct {
	// objects by GROUP/PLURAL.
	objects map[string][]map[string]any
	mutex   sync.Mutex
	// written objects by path.
	written map[string]map[string]any
}

func newAPIServer(objects []map[string]any) *apiServer {
	server := &apiServer{objects: map[string][]map[string]any{}, written: map[string]map[string]any{}}
	definitions := map[string]bool{}
	for index, object := range objects {
		// What has no version, a control plane takes for something that it has not seen.
		metadata := object["metadata"].(map[string]any)
		metadata["resourceVersion"] = fmt.Sprint(index + 1)
		metadata["uid"] = fmt.Sprintf("00000000-0000-0000-0000-%012d", index+1)
		metadata["creationTimestamp"] = "2000-01-01T00:00:00Z"
		group, _, _ := strings.Cut(object["apiVersion"].(string), "/")
		if group == "v1" {
			group = ""
		}
		resource := plural(object["kind"].(string))
		server.objects[group+"/"+resource] = append(server.objects[group+"/"+resource], object)
		if strings.HasSuffix(group, ".istio.io") {
			definitions[resource+"."+group] = true
		}
	}
	for name := range definitions {
		server.objects["apiextensions.k8s.io/customresourcedefinitions"] = append(
			server.objects["apiextensions.k8s.io/customresourcedefinitions"],
			map[string]any{"kind": "CustomResourceDefinition", "metadata": map[string]any{"name": name}})
	}
	return server
}

func plural(kind string) string {
	name := strings.ToLower(kind)
	switch {
	case strings.HasSuffix(name, "y") && !strings.HasSuffix(name, "ay"):
		return strings.TrimSuffix(name, "y") + "ies"
	case strings.HasSuffix(name, "s"):
		return name + "es"
	}
	return name + "s"
}

// serve prints the address of the server and serves for good.
func (s *apiServer) serve(listen string) error {
	listener, err := net.Listen("tcp", listen)
	if err != nil {
		return err
	}
	fmt.Println("listening", listener.Addr())
	return http.Serve(listener, s)
}

// place is what a path of the API names: /api/v1/… or /apis/GROUP/VERSION/…, then perhaps
// namespaces/NAME, a plural, and perhaps an object's name.
type place struct {
	group, version, namespace, resource, name string
}

func parsePlace(path string) (place, bool) {
	parts := strings.Split(strings.Trim(path, "/"), "/")
	var found place
	switch {
	case len(parts) >= 3 && parts[0] == "api":
		found.version, parts = parts[1], parts[2:]
	case len(parts) >= 4 && parts[0] == "apis":
		found.group, found.version, parts = parts[1], parts[2], parts[3:]
	default:
		return found, false
	}
	if len(parts) >= 3 && parts[0] == "namespaces" {
		found.namespace, parts = parts[1], parts[2:]
	}
	found.resource = parts[0]
	if len(parts) > 1 {
		found.name = parts[1]
	}
	return found, true
}

func (p place) apiVersion() string { return strings.TrimPrefix(p.group+"/"+p.version, "/") }

func (s *apiServer) ServeHTTP(writer http.ResponseWriter, request *http.Request) {
	if request.URL.Path == "/version" {
		answer(writer, http.StatusOK, map[string]any{"major": "1", "minor": "36", "gitVersion": "v1.36.0"})
		return
	}
	place, ok := parsePlace(request.URL.Path)
	switch {
	case !ok:
		refuse(writer, http.StatusNotFound, "NotFound")
	case request.Method != http.MethodGet:
		s.write(writer, request, place)
	case place.name != "":
		s.read(writer, request, place)
	case request.URL.Query().Has("watch"):
		s.watch(writer, request)
	default:
		s.answerList(writer, request, place)
	}
}

// answerList tells what there is of a resource, and of one that is not known: nothing. The list names no
// kind; who asks takes it for the one that was asked for.
func (s *apiServer) answerList(writer http.ResponseWriter, request *http.Request, place place) {
	items := s.list(place)
	list := map[string]any{"metadata": map[string]any{"resourceVersion": "1"}, "items": items}
	if strings.Contains(request.Header.Get("Accept"), "as=PartialObjectMetadataList") {
		list["kind"], list["apiVersion"] = "PartialObjectMetadataList", "meta.k8s.io/v1"
		for _, item := range items {
			object := item.(map[string]any)
			object["kind"], object["apiVersion"] = "PartialObjectMetadata", "meta.k8s.io/v1"
		}
	}
	answer(writer, http.StatusOK, list)
}

func (s *apiServer) list(place place) []any {
	items := []any{}
	for _, object := range s.objects[place.group+"/"+place.resource] {
		metadata := object["metadata"].(map[string]any)
		if place.namespace != "" && metadata["namespace"] != place.namespace {
			continue
		}
		// In whichever version it is asked for; those of Istio's kinds have the same fields.
		copied := map[string]any{}
		for name, value := range object {
			copied[name] = value
		}
		copied["apiVersion"] = place.apiVersion()
		items = append(items, copied)
	}
	return items
}

// watch holds the line and says nothing. A watch that is to begin with a list is refused, as by servers
// that are too old for it; whoever asked then lists.
func (s *apiServer) watch(writer http.ResponseWriter, request *http.Request) {
	if request.URL.Query().Get("sendInitialEvents") == "true" {
		refuse(writer, http.StatusUnprocessableEntity, "Invalid")
		return
	}
	writer.Header().Set("Content-Type", "application/json")
	if flusher, ok := writer.(http.Flusher); ok {
		flusher.Flush()
	}
	<-request.Context().Done()
}

func (s *apiServer) read(writer http.ResponseWriter, request *http.Request, place place) {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	if object, found := s.written[request.URL.Path]; found {
		answer(writer, http.StatusOK, object)
		return
	}
	for _, object := range s.list(place) {
		metadata := object.(map[string]any)["metadata"].(map[string]any)
		if metadata["name"] == place.name {
			answer(writer, http.StatusOK, object)
			return
		}
	}
	refuse(writer, http.StatusNotFound, "NotFound")
}

func (s *apiServer) write(writer http.ResponseWriter, request *http.Request, place place) {
	var object map[string]any
	if err := json.NewDecoder(request.Body).Decode(&object); err != nil {
		refuse(writer, http.StatusUnsupportedMediaType, "UnsupportedMediaType")
		return
	}
	metadata, _ := object["metadata"].(map[string]any)
	if metadata == nil {
		refuse(writer, http.StatusForbidden, "Forbidden")
		return
	}
	path := request.URL.Path
	if request.Method == http.MethodPost {
		path = fmt.Sprintf("%s/%v", path, metadata["name"])
	}
	metadata["resourceVersion"] = "1"
	s.mutex.Lock()
	defer s.mutex.Unlock()
	s.written[path] = object
	answer(writer, http.StatusOK, object)
}

func answer(writer http.ResponseWriter, code int, body any) {
	writer.Header().Set("Content-Type", "application/json")
	writer.WriteHeader(code)
	_ = json.NewEncoder(writer).Encode(body)
}

func refuse(writer http.ResponseWriter, code int, reason string) {
	answer(writer, code, map[string]any{"kind": "Status", "apiVersion": "v1", "status": "Failure",
		"reason": reason, "code": code})
}
