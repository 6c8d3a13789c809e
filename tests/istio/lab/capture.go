package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"slices"
	"sort"
	"strings"
	"time"

	"meshgate/tests/istio/golden"
)

// source is where the resources of a proxy can be read, in the form of Envoy's config dump.
type source interface {
	dump() (dump, error)
}

type dump struct {
	Configs []map[string]any `json:"configs"`
}

// proxySource is the admin interface of a proxy that has taken everything in.
type proxySource struct{ admin string }

func (s proxySource) dump() (dump, error) {
	var all dump
	return all, get(s.admin+"/config_dump?include_eds", &all)
}

// controlPlane is asked for everything that the proxy would ask for, so that nothing depends on what a
// particular Envoy knows.
type controlPlane struct {
	discovery, debug string
	proxy            proxy
}

func (s controlPlane) dump() (dump, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	var all dump
	subscriber, err := subscribe(ctx, s.discovery, s.proxy)
	if err != nil {
		return all, err
	}
	for _, kind := range []string{clusterType, listenerType} {
		if err := subscriber.ask(kind, nil); err != nil {
			return all, err
		}
	}
	address := s.debug + "/debug/config_dump?include_eds=true&proxyID=" + s.proxy.name + "." + s.proxy.namespace
	if err := get(address, &all); err != nil {
		return all, err
	}
	names := references{}
	names.find(all.Configs)
	for _, kind := range []string{endpointType, routeType, extensionType} {
		if wanted := names[kind]; len(wanted) > 0 {
			if err := subscriber.ask(kind, wanted); err != nil {
				return all, err
			}
		}
	}
	all = dump{}
	return all, get(address, &all)
}

// references are the names of the resources that listeners and clusters refer to, by type.
type references map[string][]string

func (r references) find(value any) {
	switch value := value.(type) {
	case []map[string]any:
		for _, inner := range value {
			r.find(inner)
		}
	case []any:
		for _, inner := range value {
			r.find(inner)
		}
	case map[string]any:
		if rds, ok := value["rds"].(map[string]any); ok {
			r.add(routeType, rds["routeConfigName"])
		}
		if _, ok := value["configDiscovery"]; ok {
			r.add(extensionType, value["name"])
		}
		if value["type"] == "EDS" {
			service, _ := value["edsClusterConfig"].(map[string]any)
			r.add(endpointType, service["serviceName"], value["name"])
		}
		for _, inner := range value {
			r.find(inner)
		}
	}
}

// add adds the first of the names that is one.
func (r references) add(kind string, names ...any) {
	for _, each := range names {
		if name, ok := each.(string); ok && name != "" {
			if !slices.Contains(r[kind], name) {
				r[kind] = append(r[kind], name)
			}
			return
		}
	}
}

// capture fills in what the source has. A resource that waits for something (a certificate, a module)
// counts; one that Envoy refused is an error.
func capture(source source, file *golden.File) error {
	dump, err := source.dump()
	if err != nil {
		return err
	}
	for _, each := range dump.Configs {
		part := normal(each).(map[string]any)
		kind, _ := part["@type"].(string)
		var err error
		switch kind[strings.LastIndex(kind, ".")+1:] {
		case "ListenersConfigDump":
			err = collect(&file.Listeners, part, "listener", "dynamicListeners")
		case "ClustersConfigDump":
			err = collect(&file.Clusters, part, "cluster", "dynamicActiveClusters", "dynamicWarmingClusters")
		case "RoutesConfigDump":
			err = collect(&file.Routes, part, "routeConfig", "dynamicRouteConfigs")
		case "EndpointsConfigDump":
			err = collect(&file.Endpoints, part, "endpointConfig", "dynamicEndpointConfigs")
		case "EcdsConfigDump":
			err = collect(&file.Extensions, part, "ecdsFilter", "ecdsFilters")
		}
		if err != nil {
			return err
		}
	}
	file.Endpoints = discovered(file.Endpoints, file.Clusters)
	for _, kind := range []struct {
		name string
		all  []any
	}{{"listener", file.Listeners}, {"cluster", file.Clusters}, {"extension configuration", file.Extensions}} {
		if len(kind.all) == 0 {
			return fmt.Errorf("the proxy has no %s", kind.name)
		}
	}
	return nil
}

func get(url string, into any) error {
	client := http.Client{Timeout: 30 * time.Second}
	response, err := client.Get(url)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		return err
	}
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("%s: %s", url, response.Status)
	}
	return json.Unmarshal(body, into)
}

// collect takes the resources out of one part of a dump, sorted by name. Everything around them (times,
// versions, whether a resource is in use) is left behind.
func collect(into *[]any, part map[string]any, field string, lists ...string) error {
	for _, list := range lists {
		entries, _ := part[list].([]any)
		for _, each := range entries {
			entry := each.(map[string]any)
			if failed, refused := entry["errorState"]; refused {
				return fmt.Errorf("Envoy refused %v: %v", entry["name"], failed)
			}
			for _, state := range []string{"warmingState", "activeState"} {
				if inner, ok := entry[state].(map[string]any); ok {
					entry = inner
					break
				}
			}
			resource, ok := entry[field].(map[string]any)
			if !ok {
				return fmt.Errorf("there is no %s in %v", field, entry)
			}
			*into = append(*into, resource)
		}
	}
	sort.SliceStable(*into, func(a, b int) bool { return title((*into)[a]) < title((*into)[b]) })
	return nil
}

// discovered are the endpoints that came from the control plane, without what Envoy writes beside them:
// its defaults, and the endpoints that stand in clusters.
func discovered(endpoints, clusters []any) []any {
	names := references{}
	names.find(clusters)
	return slices.DeleteFunc(endpoints, func(each any) bool {
		assignment := each.(map[string]any)
		delete(assignment, "policy")
		return !slices.Contains(names[endpointType], title(assignment))
	})
}

func title(resource any) string {
	fields := resource.(map[string]any)
	if name, ok := fields["name"].(string); ok {
		return name
	}
	name, _ := fields["clusterName"].(string)
	return name
}

// normal is the value as it is the same in every capture, from either source: fields by the names that
// protobuf's JSON form gives them, and the filter's configuration, a JSON document in a string, with
// sorted keys and without the spaces that the control plane strews in by chance.
func normal(value any) any {
	switch value := value.(type) {
	case map[string]any:
		again := map[string]any{}
		for name, inner := range value {
			name = camel(name)
			switch none, _ := inner.(map[string]any); {
			case name == "filterMetadata":
				// What is under it are names of the control plane's own.
				again[name] = inner
			case name == "healthStatus" && inner == "HEALTHY", name == "healthCheckConfig" && len(none) == 0:
				// Envoy says so of every endpoint, the control plane of some.
			default:
				again[name] = normal(inner)
			}
		}
		if _, ok := again[resourceVersion]; ok {
			again[resourceVersion] = "1"
		}
		if text, ok := again["value"].(string); ok && again["@type"] == stringValue {
			again["value"] = sorted(text)
		}
		return again
	case []any:
		for index, inner := range value {
			value[index] = normal(inner)
		}
	}
	return value
}

const (
	stringValue = "type.googleapis.com/google.protobuf.StringValue"
	// How often the plugin was written in the cluster that it was captured from.
	resourceVersion = "ISTIO_META_WASM_PLUGIN_RESOURCE_VERSION"
)

// camel leaves the keys of maps alone, which have dots or capitals in them.
func camel(name string) string {
	if name != strings.ToLower(name) || strings.ContainsAny(name, ".~@/") {
		return name
	}
	words := strings.Split(name, "_")
	for index, word := range words {
		if index > 0 && word != "" {
			words[index] = strings.ToUpper(word[:1]) + word[1:]
		}
	}
	return strings.Join(words, "")
}

func sorted(document string) string {
	var value any
	if json.Unmarshal([]byte(document), &value) != nil {
		return document
	}
	again, err := json.Marshal(value)
	if err != nil {
		return document
	}
	return string(again)
}
