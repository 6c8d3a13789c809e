package main

import (
	"fmt"
	"maps"
	"slices"

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

// applied is the example as it is given to an API server to capture from: its objects that a control
// plane reads, with addresses for the Services that are the same each time, and, in place of Deployments,
// the pods.
func applied(objects []manifest.Object) ([]map[string]any, error) {
	var namespaces, all []map[string]any
	services := 10
	for _, object := range objects {
		if object.GetKind() == "Namespace" {
			namespaces = append(namespaces, object.Object)
		}
		if object.GetKind() == "ServiceAccount" {
			all = append(all, object.Object)
		}
		if !golden.ReadByControlPlane(object) {
			continue
		}
		copied := object.DeepCopy()
		if copied.GetKind() == "Service" {
			services++
			address := fmt.Sprintf("10.2.0.%d", services)
			if err := unstructured.SetNestedField(copied.Object, address, "spec", "clusterIP"); err != nil {
				return nil, err
			}
		}
		all = append(all, copied.Object)
	}
	for _, pod := range podsOf(objects) {
		all = append(all, pod.object())
	}
	// Where the pods are: nobody makes endpoints of pods that are nowhere.
	node := map[string]any{"apiVersion": "v1", "kind": "Node", "metadata": map[string]any{"name": "node"}}
	return append(append(namespaces, node), all...), nil
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

// podsOf are those whose service accounts the example has.
func podsOf(objects []manifest.Object) []pod {
	return slices.DeleteFunc(slices.Clone(pods), func(pod pod) bool {
		return !slices.ContainsFunc(objects, func(object manifest.Object) bool {
			return object.GetKind() == "ServiceAccount" && object.GetName() == pod.account &&
				object.GetNamespace() == pod.namespace
		})
	})
}

func (p pod) object() map[string]any {
	return map[string]any{
		"apiVersion": "v1", "kind": "Pod",
		"metadata": map[string]any{"name": p.name, "namespace": p.namespace, "labels": p.allLabels()},
		"spec": map[string]any{"serviceAccountName": p.account, "nodeName": "node",
			"containers": []any{map[string]any{"name": "none", "image": "none"}}},
	}
}

// status is what a kubelet would say of it.
func (p pod) status() map[string]any {
	return map[string]any{"phase": "Running", "podIP": p.address,
		"podIPs":     []any{map[string]any{"ip": p.address}},
		"conditions": []any{map[string]any{"type": "Ready", "status": "True"}}}
}
