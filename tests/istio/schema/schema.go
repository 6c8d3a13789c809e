// Package schema judges an object as an API server would that has Istio's and the Gateway API's
// resources: unknown fields, types, defaults, and the rules beyond the schema (CEL for custom
// resources, Kubernetes' own validation for its kinds).
package schema

import (
	"fmt"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

// Catalogue holds every kind that is known.
type Catalogue struct {
	custom map[string]*customResource
}

// New reads the CRDs from the Go modules that go.mod pins.
func New() (*Catalogue, error) {
	custom, err := loadCustomResources()
	if err != nil {
		return nil, err
	}
	return &Catalogue{custom: custom}, nil
}

// Check answers everything that is wrong with the object. It is taken as a new one; the object
// itself is not changed.
func (c *Catalogue) Check(object *unstructured.Unstructured) []error {
	object = object.DeepCopy()
	kind := object.GroupVersionKind()
	if resource, found := c.custom[kind.String()]; found {
		return resource.check(object)
	}
	if validate, found := builtin[kind]; found {
		return checkBuiltin(object, validate)
	}
	return []error{fmt.Errorf("%s: no schema is known", kind)}
}
