package main

import (
	"fmt"
	"maps"
	"net"
	"strconv"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"meshgate/tests/istio/golden"
	"meshgate/tests/istio/manifest"
)

// pod is one that the Deployments of istio/base would have made, with the address that it has in the
// golden files. game-v2 is the second version that gateway-routed speaks of.
type pod struct {
	name, namespace, account, address string
	labels                            map[string]string
}

var pods = []pod{
	{"private-gateway", "meshgate", "private-gateway", "10.1.0.2",
		map[string]string{"app": "private-gateway"}},
	{"companion", "meshgate", "companion", "10.1.0.9", map[string]string{"app": "companion"}},
	{"game-v1", "game", "game", "10.1.0.11", map[string]string{"app": "game", "version": "v1"}},
	{"game-v2", "game", "game", "10.1.0.12", map[string]string{"app": "game", "version": "v2"}},
}

// proxy is the pod whose proxy runs the filter, and how Istio calls that kind of proxy.
type proxy struct {
	kind string
	pod
}

var proxies = map[string]proxy{
	"gateway-direct":  {"router", pods[0]},
	"gateway-routed":  {"router", pods[0]},
	"gateway-tls":     {"router", pods[0]},
	"sidecar-inbound": {"sidecar", pods[2]},
}

func (p proxy) node() string {
	return fmt.Sprintf("%s~%s~%s.%s~%s.svc.cluster.local", p.kind, p.address, p.name, p.namespace, p.namespace)
}

func (p proxy) cluster() string { return p.account + "." + p.namespace }

// metadata is what the control plane goes by.
func (p proxy) metadata() map[string]any {
	return map[string]any{
		"NAMESPACE":         p.namespace,
		"LABELS":            p.labels,
		"CLUSTER_ID":        "Kubernetes",
		"SERVICE_ACCOUNT":   p.account,
		"INSTANCE_IPS":      p.address,
		"INTERCEPTION_MODE": "REDIRECT",
	}
}

// applied is what an API server would hold after the example was applied: its objects, and what
// Kubernetes adds (addresses of Services, running pods, endpoints). `stock` is empty, or the module's
// file: it takes the image's place then, and the HTTP filter of Istio's own that no setting of the
// control plane switches off is taken out.
func applied(objects []manifest.Object, stock string) ([]map[string]any, error) {
	var all []map[string]any
	services := 0
	for _, object := range objects {
		if !golden.ReadByControlPlane(object) {
			continue
		}
		copied := object.DeepCopy()
		switch {
		case copied.GetKind() == "Service":
			services++
			address := fmt.Sprintf("10.2.0.%d", services)
			if err := unstructured.SetNestedField(copied.Object, address, "spec", "clusterIP"); err != nil {
				return nil, err
			}
			all = append(all, endpoints(object))
		case copied.GetKind() == "WasmPlugin" && stock != "":
			if err := unstructured.SetNestedField(copied.Object, "file://"+stock, "spec", "url"); err != nil {
				return nil, err
			}
		}
		all = append(all, copied.Object)
	}
	if stock != "" {
		all = append(all, withoutALPN())
	}
	for _, namespace := range []string{"istio-system", "meshgate", "game"} {
		all = append(all, map[string]any{"apiVersion": "v1", "kind": "Namespace", "metadata": map[string]any{
			"name": namespace, "labels": map[string]any{"kubernetes.io/metadata.name": namespace}}})
	}
	for _, pod := range pods {
		all = append(all, pod.object())
	}
	return all, nil
}

func withoutALPN() map[string]any {
	patch := map[string]any{
		"applyTo": "HTTP_FILTER",
		"match": map[string]any{"listener": map[string]any{"filterChain": map[string]any{"filter": map[string]any{
			"name":      "envoy.filters.network.http_connection_manager",
			"subFilter": map[string]any{"name": "istio.alpn"}}}}},
		"patch": map[string]any{"operation": "REMOVE"},
	}
	return map[string]any{
		"apiVersion": "networking.istio.io/v1alpha3", "kind": "EnvoyFilter",
		"metadata": map[string]any{"name": "stock-envoy", "namespace": "istio-system"},
		"spec":     map[string]any{"configPatches": []any{patch}},
	}
}

// allLabels adds the one by which an injected proxy says that it speaks Istio's mTLS.
func (p pod) allLabels() map[string]string {
	all := maps.Clone(p.labels)
	all["security.istio.io/tlsMode"] = "istio"
	return all
}

func (p pod) object() map[string]any {
	return map[string]any{
		"apiVersion": "v1", "kind": "Pod",
		"metadata": map[string]any{"name": p.name, "namespace": p.namespace, "labels": p.allLabels()},
		"spec":     map[string]any{"serviceAccountName": p.account, "nodeName": "node"},
		"status": map[string]any{"phase": "Running", "podIP": p.address,
			"podIPs":     []any{map[string]any{"ip": p.address}},
			"conditions": []any{map[string]any{"type": "Ready", "status": "True"}}},
	}
}

// endpoints is the slice that Kubernetes would keep for the Service; its ports are those that the pods
// have under the same numbers.
func endpoints(service manifest.Object) map[string]any {
	selector, _, _ := unstructured.NestedStringMap(service.Object, "spec", "selector")
	ports, _, _ := unstructured.NestedSlice(service.Object, "spec", "ports")
	var slicePorts, sliceEndpoints []any
	for _, each := range ports {
		port := each.(map[string]any)
		slicePort := map[string]any{"name": port["name"], "port": port["port"], "protocol": "TCP"}
		if target, ok := port["targetPort"]; ok {
			slicePort["port"] = target
		}
		if protocol, ok := port["appProtocol"]; ok {
			slicePort["appProtocol"] = protocol
		}
		slicePorts = append(slicePorts, slicePort)
	}
	for _, pod := range pods {
		if len(selector) == 0 || pod.namespace != service.GetNamespace() || !selects(selector, pod.labels) {
			continue
		}
		sliceEndpoints = append(sliceEndpoints, map[string]any{
			"addresses": []any{pod.address}, "conditions": map[string]any{"ready": true},
			"targetRef": map[string]any{"kind": "Pod", "name": pod.name, "namespace": pod.namespace}})
	}
	return map[string]any{
		"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
		"metadata": map[string]any{"name": service.GetName() + "-1", "namespace": service.GetNamespace(),
			"labels": map[string]any{"kubernetes.io/service-name": service.GetName()}},
		"ports": slicePorts, "endpoints": sliceEndpoints,
	}
}

func selects(selector, labels map[string]string) bool {
	for name, value := range selector {
		if labels[name] != value {
			return false
		}
	}
	return true
}

// bootstrap is what Istio's agent would write, less what only the agent could answer.
func bootstrap(p proxy, discovery string) (map[string]any, error) {
	host, port, err := net.SplitHostPort(discovery)
	if err != nil {
		return nil, fmt.Errorf("-discovery: %w", err)
	}
	number, err := strconv.Atoi(port)
	if err != nil {
		return nil, fmt.Errorf("-discovery: %w", err)
	}
	ads := map[string]any{"ads": map[string]any{}, "initial_fetch_timeout": "0s", "resource_api_version": "V3"}
	return map[string]any{
		"node": map[string]any{
			"id":      p.node(),
			"cluster": p.cluster(), "metadata": p.metadata(),
		},
		"admin": map[string]any{"address": socket("127.0.0.1", 15000)},
		"dynamic_resources": map[string]any{
			"lds_config": ads,
			"cds_config": ads,
			"ads_config": map[string]any{
				"api_type": "DELTA_GRPC", "transport_api_version": "V3", "set_node_on_first_message_only": true,
				"grpc_services": []any{map[string]any{"envoy_grpc": map[string]any{"cluster_name": "xds-grpc"}}},
			},
		},
		"static_resources": map[string]any{"clusters": []any{
			http2("xds-grpc", socket(host, number)),
			http2("sds-grpc", map[string]any{"pipe": map[string]any{"path": "./var/run/secrets/workload-spiffe-uds/socket"}}),
		}},
	}, nil
}

func socket(host string, port int) map[string]any {
	return map[string]any{"socket_address": map[string]any{"address": host, "port_value": port}}
}

func http2(name string, address map[string]any) map[string]any {
	return map[string]any{
		"name": name, "type": "STATIC", "connect_timeout": "1s",
		"typed_extension_protocol_options": map[string]any{
			"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": map[string]any{
				"@type":                "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
				"explicit_http_config": map[string]any{"http2_protocol_options": map[string]any{}},
			}},
		"load_assignment": map[string]any{"cluster_name": name, "endpoints": []any{map[string]any{
			"lb_endpoints": []any{map[string]any{"endpoint": map[string]any{"address": address}}}}}},
	}
}
