package istio

import (
	"fmt"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"meshgate/tests/istio/admission"
	"meshgate/tests/istio/manifest"
)

// A listener that lost its filter goes by its own route. So no route of a private port may lead to
// anything that answers.
func TestAListenerWithoutItsFilterLeadsNowhere(t *testing.T) {
	all := scenarios(t)
	for scenario, objects := range all {
		if scenario == base {
			continue
		}
		objects := append(append([]manifest.Object{}, all[base]...), objects...)
		for _, plugin := range objects {
			if plugin.GetKind() != "WasmPlugin" {
				continue
			}
			t.Run(scenario+"/"+plugin.GetName(), func(t *testing.T) {
				for _, match := range list(t, plugin.Object, "spec", "match") {
					for _, port := range list(t, match, "ports") {
						number := text(port["number"])
						if match["mode"] == "SERVER" {
							nothingListens(t, objects, plugin, number)
						} else {
							routeLeadsNowhere(t, objects, plugin, number)
						}
					}
				}
			})
		}
	}
}

// routeLeadsNowhere: every VirtualService rule for TCP on the port goes to a Service of the scenario
// that selects no pods.
func routeLeadsNowhere(t *testing.T, objects []manifest.Object, plugin manifest.Object, port string) {
	t.Helper()
	routes := 0
	for _, object := range objects {
		if object.GetKind() != "VirtualService" {
			continue
		}
		for _, rule := range list(t, object.Object, "spec", "tcp") {
			matches := list(t, rule, "match")
			concerned := len(matches) == 0
			for _, match := range matches {
				concerned = concerned || match["port"] == nil || text(match["port"]) == port
			}
			if !concerned {
				continue
			}
			for _, route := range list(t, rule, "route") {
				routes++
				host, _, _ := unstructured.NestedString(route, "destination", "host")
				if !selectsNothing(objects, host) {
					t.Errorf("%s leads port %s to %s", object.Title(), port, host)
				}
			}
		}
	}
	if routes == 0 {
		t.Errorf("no VirtualService routes port %s of %s", port, plugin.Title())
	}
}

func selectsNothing(objects []manifest.Object, host string) bool {
	for _, object := range objects {
		name := fmt.Sprintf("%s.%s.svc.cluster.local", object.GetName(), object.GetNamespace())
		if object.GetKind() == "Service" && name == host {
			selector, _, _ := unstructured.NestedMap(object.Object, "spec", "selector")
			return len(selector) == 0
		}
	}
	return false
}

// nothingListens: no container of the plugin's workload has the target port of the Service's port.
func nothingListens(t *testing.T, objects []manifest.Object, plugin manifest.Object, port string) {
	t.Helper()
	labels, _, _ := unstructured.NestedStringMap(plugin.Object, "spec", "selector", "matchLabels")
	found := false
	for _, object := range objects {
		if object.GetNamespace() != plugin.GetNamespace() {
			continue
		}
		switch object.GetKind() {
		case "Service":
			for _, entry := range list(t, object.Object, "spec", "ports") {
				if text(entry["port"]) == port {
					found = true
					if target := entry["targetPort"]; target != nil && text(target) != port {
						t.Errorf("%s: targetPort %v of port %s", object.Title(), target, port)
					}
				}
			}
		case "Deployment":
			of, _, _ := unstructured.NestedStringMap(object.Object, "spec", "template", "metadata", "labels")
			if !contains(of, labels) {
				continue
			}
			for _, container := range list(t, object.Object, "spec", "template", "spec", "containers") {
				for _, entry := range list(t, container, "ports") {
					if text(entry["containerPort"]) == port {
						t.Errorf("%s listens on %s itself", object.Title(), port)
					}
				}
			}
		}
	}
	if !found {
		t.Errorf("no Service has port %s of %s", port, plugin.Title())
	}
}

func TestTheAdmissionPolicyTakesTheExamplesAndNothingUnsafe(t *testing.T) {
	all := scenarios(t)
	policy := compile(t, all[base])
	var plugin manifest.Object
	for scenario, objects := range all {
		for _, object := range objects {
			if object.GetKind() != "WasmPlugin" {
				continue
			}
			plugin = object
			if messages, err := policy.Refuses(object.Unstructured); err != nil || len(messages) > 0 {
				t.Errorf("%s: %s: %v %v", scenario, object.Title(), messages, err)
			}
		}
	}

	for name, unsafe := range map[string]struct {
		change func(spec map[string]any)
		says   string
	}{
		"fails open": {func(spec map[string]any) { spec["failStrategy"] = "FAIL_OPEN" }, "FAIL_RELOAD"},
		"says nothing of failing": {func(spec map[string]any) { delete(spec, "failStrategy") },
			"FAIL_RELOAD"},
		"has no scheme": {func(spec map[string]any) {
			spec["url"] = "10.0.0.1:5000/meshgate"
			spec["sha256"] = strings.Repeat("0", 64)
		}, "must begin with"},
		"goes by a tag": {func(spec map[string]any) { spec["url"] = "oci://r/meshgate:latest" }, "pinned"},
		"comes by http without a hash": {func(spec map[string]any) { spec["url"] = "https://r/a.wasm" },
			"pinned"},
		"matches every port": {func(spec map[string]any) { delete(spec, "match") }, "name its ports"},
		"has a match for every port": {func(spec map[string]any) {
			spec["match"] = append(spec["match"].([]any), map[string]any{"mode": "SERVER"})
		}, "name its ports"},
		"is for every workload": {func(spec map[string]any) { delete(spec, "selector") },
			"for which workloads"},
		"leaves the cluster to tcp_proxy": {func(spec map[string]any) {
			delete(spec["pluginConfig"].(map[string]any)["upstream"].(map[string]any), "cluster")
		}, "dead end"},
		"has no configuration": {func(spec map[string]any) { delete(spec, "pluginConfig") }, "dead end"},
	} {
		t.Run(name, func(t *testing.T) {
			changed := plugin.DeepCopy()
			unsafe.change(changed.Object["spec"].(map[string]any))
			messages, err := policy.Refuses(changed)
			if err != nil || len(messages) != 1 || !strings.Contains(messages[0], unsafe.says) {
				t.Errorf("expected a refusal that says %q, found %q %v", unsafe.says, messages, err)
			}
		})
	}
	t.Run("HTTP plugins are none of its business", func(t *testing.T) {
		changed := plugin.DeepCopy()
		changed.Object["spec"] = map[string]any{"url": "r/a:latest", "failStrategy": "FAIL_OPEN"}
		if messages, err := policy.Refuses(changed); err != nil || len(messages) > 0 {
			t.Errorf("%q %v", messages, err)
		}
	})
}

func compile(t *testing.T, objects []manifest.Object) *admission.Policy {
	t.Helper()
	for _, object := range objects {
		if object.GetKind() == "ValidatingAdmissionPolicy" {
			policy, err := admission.Compile(object.Unstructured)
			if err != nil {
				t.Fatal(err)
			}
			return policy
		}
	}
	t.Fatal("there is no ValidatingAdmissionPolicy")
	return nil
}

// list answers a list of objects, empty where there is none.
func list(t *testing.T, object map[string]any, path ...string) []map[string]any {
	t.Helper()
	entries, _, err := unstructured.NestedSlice(object, path...)
	if err != nil {
		t.Fatal(err)
	}
	var objects []map[string]any
	for _, entry := range entries {
		objects = append(objects, entry.(map[string]any))
	}
	return objects
}

func text(value any) string { return fmt.Sprint(value) }

func contains(labels, wanted map[string]string) bool {
	for name, value := range wanted {
		if labels[name] != value {
			return false
		}
	}
	return true
}
