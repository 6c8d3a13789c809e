package main

import (
	"context"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"reflect"
	"strings"
	"testing"
	"time"

	"meshgate/tests/istio/golden"
	"meshgate/tests/istio/manifest"
)

const nodeID = "router~10.1.0.2~private-gateway.meshgate~meshgate.svc.cluster.local"

// What a control plane says of itself, and what a proxy's admin interface says after taking it in.
const (
	fromControlPlane = `{"configs": [
		{"@type": "x.ClustersConfigDump", "dynamicActiveClusters": [
			{"cluster": {"name": "b", "type": "EDS", "edsClusterConfig": {"serviceName": "b"},
				"metadata": {"filterMetadata": {"istio": {"own_name": 1}}}}},
			{"cluster": {"name": "a", "type": "STATIC"}}]},
		{"@type": "x.EndpointsConfigDump", "dynamicEndpointConfigs": [
			{"endpointConfig": {"clusterName": "b"}}]},
		{"@type": "x.ListenersConfigDump", "dynamicListeners": [{"name": "l", "activeState": {"listener": {
			"name": "l", "perConnectionBufferLimitBytes": 1}}}]},
		{"@type": "x.EcdsConfigDump", "ecdsFilters": [{"ecdsFilter": {"name": "e", "typedConfig": {
			"@type": "type.googleapis.com/google.protobuf.StringValue", "value": "{\"b\":1, \"a\": 2}"}}}]}]}`
	fromProxy = `{"configs": [
		{"@type": "x.ClustersConfigDump", "static_clusters": [{"cluster": {"name": "xds-grpc"}}],
			"dynamic_active_clusters": [{"version_info": "7", "cluster": {"name": "a", "type": "STATIC"}}],
			"dynamic_warming_clusters": [{"last_updated": "now", "cluster": {"name": "b", "type": "EDS",
				"eds_cluster_config": {"service_name": "b"},
				"metadata": {"filter_metadata": {"istio": {"own_name": 1}}}}}]},
		{"@type": "x.EndpointsConfigDump", "dynamic_endpoint_configs": [
			{"endpoint_config": {"cluster_name": "a", "policy": {"overprovisioning_factor": 140}}},
			{"endpoint_config": {"cluster_name": "b", "policy": {"overprovisioning_factor": 140}}}]},
		{"@type": "x.ListenersConfigDump", "dynamic_listeners": [{"name": "l", "warming_state": {
			"last_updated": "now", "listener": {"name": "l", "per_connection_buffer_limit_bytes": 1}}}]},
		{"@type": "x.EcdsConfigDump", "ecds_filters": [{"ecds_filter": {"name": "e", "typed_config": {
			"@type": "type.googleapis.com/google.protobuf.StringValue", "value": "{\"a\":2,\"b\":1}"}}}]}]}`
	refused = `{"configs": [{"@type": "x.ListenersConfigDump", "dynamic_listeners": [
		{"name": "l", "error_state": {"details": "no such filter"}}]}]}`
)

type said string

func (s said) dump() (dump, error) {
	var all dump
	return all, json.Unmarshal([]byte(s), &all)
}

func TestACaptureIsTheSameFromEitherSource(t *testing.T) {
	var first, second golden.File
	if err := capture(said(fromControlPlane), &first); err != nil {
		t.Fatal(err)
	}
	if err := capture(said(fromProxy), &second); err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(first, second) {
		t.Errorf("%v\n%v", first, second)
	}
	if len(first.Clusters) != 2 || title(first.Clusters[0]) != "a" || len(first.Endpoints) != 1 {
		t.Errorf("%v", first)
	}
}

func TestWhatEnvoyRefusedIsNotCaptured(t *testing.T) {
	err := capture(said(refused), &golden.File{})
	if err == nil || !strings.Contains(err.Error(), "no such filter") {
		t.Error(err)
	}
}

func TestAProxyWithoutItsResourcesIsNotCaptured(t *testing.T) {
	if err := capture(said(`{"configs": []}`), &golden.File{}); err == nil {
		t.Error("an empty dump was taken")
	}
}

func serving(t *testing.T) *httptest.Server {
	t.Helper()
	objects, err := manifest.Parse("test", []byte(`
apiVersion: v1
kind: Service
metadata: { name: game, namespace: game }
spec:
  selector: { app: game }
  ports: [{ name: grpc, port: 50051, targetPort: 50051, appProtocol: grpc }]
---
apiVersion: extensions.istio.io/v1alpha1
kind: WasmPlugin
metadata: { name: meshgate, namespace: meshgate }
spec: { url: "oci://registry.example/filter" }
---
apiVersion: apps/v1
kind: Deployment
metadata: { name: game, namespace: game }
`))
	if err != nil {
		t.Fatal(err)
	}
	all, err := applied(objects, "/m.wasm")
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(newAPIServer(all))
	t.Cleanup(server.Close)
	return server
}

func items(t *testing.T, url string) []any {
	t.Helper()
	var list struct {
		Items []any `json:"items"`
	}
	if err := get(url, &list); err != nil {
		t.Fatal(err)
	}
	return list.Items
}

func TestTheAPIServerHoldsTheExampleAndItsPods(t *testing.T) {
	server := serving(t)
	slices := items(t, server.URL+"/apis/discovery.k8s.io/v1/namespaces/game/endpointslices")
	if len(slices) != 1 || len(slices[0].(map[string]any)["endpoints"].([]any)) != 2 {
		t.Errorf("both versions of the game should be endpoints: %v", slices)
	}
	if found := items(t, server.URL+"/api/v1/namespaces/meshgate/services"); len(found) != 0 {
		t.Errorf("another namespace's: %v", found)
	}
	if found := items(t, server.URL+"/apis/apps/v1/deployments"); len(found) != 0 {
		t.Errorf("no control plane reads %v", found)
	}
	plugins := items(t, server.URL+"/apis/extensions.istio.io/v1alpha1/wasmplugins")
	spec := plugins[0].(map[string]any)["spec"].(map[string]any)
	if spec["url"] != "file:///m.wasm" {
		t.Errorf("a stock Envoy cannot fetch %v", spec["url"])
	}
	definitions := items(t, server.URL+"/apis/apiextensions.k8s.io/v1/customresourcedefinitions")
	names := map[any]bool{}
	for _, each := range definitions {
		names[each.(map[string]any)["metadata"].(map[string]any)["name"]] = true
	}
	if !names["wasmplugins.extensions.istio.io"] || !names["envoyfilters.networking.istio.io"] {
		t.Errorf("%v", names)
	}
}

func TestAWatchIsHeldAndOneThatWantsAListIsRefused(t *testing.T) {
	server := serving(t)
	response, err := http.Get(server.URL + "/api/v1/services?watch=true&sendInitialEvents=true")
	if err != nil {
		t.Fatal(err)
	}
	response.Body.Close()
	if response.StatusCode != http.StatusUnprocessableEntity {
		t.Error(response.Status)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, server.URL+"/api/v1/services?watch=true", nil)
	if err != nil {
		t.Fatal(err)
	}
	response, err = http.DefaultClient.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		t.Error(response.Status)
	}
}

func TestWhatIsWrittenIsFoundAgain(t *testing.T) {
	server := serving(t)
	leases := server.URL + "/apis/coordination.k8s.io/v1/namespaces/istio-system/leases"
	response, err := http.Post(leases, "application/json", strings.NewReader(`{"metadata": {"name": "leader"}}`))
	if err != nil {
		t.Fatal(err)
	}
	response.Body.Close()
	var lease map[string]any
	if err := get(leases+"/leader", &lease); err != nil {
		t.Fatal(err)
	}
	if err := get(leases+"/nobody", &lease); err == nil {
		t.Error("found what was never written")
	}
}

func TestAProxySaysWhoItIs(t *testing.T) {
	node, err := proxies["gateway-direct"].encoded()
	if err != nil {
		t.Fatal(err)
	}
	fields, err := texts(node)
	if err != nil {
		t.Fatal(err)
	}
	if fields[1] != nodeID || fields[2] != "private-gateway.meshgate" || !strings.Contains(fields[3], "LABELS") {
		t.Errorf("%q", fields)
	}
	if _, err := texts(node[:len(node)-1]); err == nil {
		t.Error("a message that was cut off was read")
	}
}
