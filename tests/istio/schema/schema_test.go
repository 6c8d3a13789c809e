package schema

import (
	"strings"
	"sync"
	"testing"

	"meshgate/tests/istio/manifest"
)

var load = sync.OnceValues(New)

func check(t *testing.T, text string) string {
	t.Helper()
	catalogue, err := load()
	if err != nil {
		t.Fatal(err)
	}
	objects, err := manifest.Parse("test", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	var wrong []string
	for _, object := range objects {
		for _, failure := range catalogue.Check(object.Unstructured) {
			wrong = append(wrong, failure.Error())
		}
	}
	return strings.Join(wrong, "\n")
}

func TestMistakesAreFound(t *testing.T) {
	for name, mistake := range map[string]struct{ text, says string }{
		"unknown field of a custom resource": {`
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: { name: g, namespace: game }
spec:
  selector: { a: b }
  servers: [{ port: { number: 1, name: a, protocol: TCP }, hosts: ["*"], binds: 127.0.0.1 }]
`, "spec.servers[0].binds: unknown field"},
		"unknown value of a custom resource": {`
apiVersion: extensions.istio.io/v1alpha1
kind: WasmPlugin
metadata: { name: p, namespace: game }
spec: { url: "oci://a/b", failStrategy: FAIL_OFTEN }
`, "spec.failStrategy: Unsupported value"},
		"a rule beyond the schema": {`
apiVersion: extensions.istio.io/v1alpha1
kind: WasmPlugin
metadata: { name: p, namespace: game }
spec: { url: "ftp://a/b" }
`, "url must have schema one of"},
		"unknown field in metadata": {`
apiVersion: networking.istio.io/v1
kind: Sidecar
metadata: { name: s, namespace: game, lables: { a: b } }
spec: { egress: [{ hosts: ["./*"] }] }
`, "metadata.lables: unknown field"},
		"unknown field of a Kubernetes kind": {`
apiVersion: v1
kind: Service
metadata: { name: s, namespace: game }
spec: { selector: { a: b }, ports: [{ name: p, port: 1, targetport: 2 }] }
`, `unknown field "spec.ports[0].targetport"`},
		"a value that Kubernetes refuses": {`
apiVersion: apps/v1
kind: Deployment
metadata: { name: d, namespace: game }
spec:
  selector: { matchLabels: { a: b } }
  template:
    metadata: { labels: { a: c } }
    spec: { containers: [{ name: c, image: i, readinessProbe: { grpc: { port: 99999 } } }] }
`, "spec.template.spec.containers[0].readinessProbe.grpc.port: Invalid value: 99999"},
		"a policy whose expression does not compile": {`
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicy
metadata: { name: p }
spec:
  failurePolicy: Fail
  matchConstraints:
    resourceRules: [{ apiGroups: [a], apiVersions: [b], operations: [CREATE], resources: [c] }]
  validations: [{ expression: "object.spec.url.beginsWith('a')" }]
`, "undeclared reference to 'beginsWith'"},
		"a kind that nobody knows": {`
apiVersion: example.com/v1
kind: Wish
metadata: { name: w }
`, "no schema is known"},
	} {
		t.Run(name, func(t *testing.T) {
			if found := check(t, mistake.text); !strings.Contains(found, mistake.says) {
				t.Errorf("expected %q, found:\n%s", mistake.says, found)
			}
		})
	}
}
