package main

import (
	"encoding/json"
	"reflect"
	"strings"
	"testing"

	"meshgate/tests/istio/golden"
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
