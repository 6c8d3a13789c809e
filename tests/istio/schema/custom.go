package schema

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	// Keep the modules whose CRD files are read in go.mod.
	_ "istio.io/api/label"
	_ "sigs.k8s.io/gateway-api/pkg/consts"

	"k8s.io/apiextensions-apiserver/pkg/apis/apiextensions"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	structural "k8s.io/apiextensions-apiserver/pkg/apiserver/schema"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema/cel"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema/defaulting"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema/listtype"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema/objectmeta"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema/pruning"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/validation"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/util/validation/field"
	utilyaml "k8s.io/apimachinery/pkg/util/yaml"
	celconfig "k8s.io/apiserver/pkg/apis/cel"
)

// customResource is one version of a CRD.
type customResource struct {
	namespaced bool
	schema     *structural.Structural
	validator  validation.SchemaValidator
	rules      *cel.Validator
}

// crdFiles are the modules with CRDs, and where in them those are.
var crdFiles = []struct{ module, pattern string }{
	{"istio.io/api", "kubernetes/customresourcedefinitions.gen.yaml"},
	{"sigs.k8s.io/gateway-api", "config/crd/standard/gateway.networking.k8s.io_*.yaml"},
	{operator, "example/prometheus-operator-crd/monitoring.coreos.com_podmonitors.yaml"},
	{operator, "example/prometheus-operator-crd/monitoring.coreos.com_prometheusrules.yaml"},
}

const operator = "github.com/prometheus-operator/prometheus-operator"

// Files are the files of the CRDs, Istio's, the Gateway API's and Prometheus Operator's.
func Files() ([]string, error) {
	var all []string
	for _, crds := range crdFiles {
		module, pattern := crds.module, crds.pattern
		folder, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", module).Output()
		if err != nil {
			return nil, fmt.Errorf("where is %s: %w", module, err)
		}
		files, err := filepath.Glob(filepath.Join(strings.TrimSpace(string(folder)), pattern))
		if err != nil || len(files) == 0 {
			return nil, fmt.Errorf("%s has no %s", module, pattern)
		}
		all = append(all, files...)
	}
	return all, nil
}

func loadCustomResources() (map[string]*customResource, error) {
	files, err := Files()
	if err != nil {
		return nil, err
	}
	all := map[string]*customResource{}
	for _, file := range files {
		if err := loadFile(file, all); err != nil {
			return nil, fmt.Errorf("%s: %w", file, err)
		}
	}
	return all, nil
}

func loadFile(file string, into map[string]*customResource) error {
	text, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	documents := utilyaml.NewYAMLOrJSONDecoder(bytes.NewReader(text), 4096)
	for {
		var crd apiextensionsv1.CustomResourceDefinition
		if err := documents.Decode(&crd); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
		if crd.Kind != "CustomResourceDefinition" {
			continue
		}
		for _, version := range crd.Spec.Versions {
			resource, err := newCustomResource(&crd, version)
			if err != nil {
				return fmt.Errorf("%s %s: %w", crd.Name, version.Name, err)
			}
			kind := fmt.Sprintf("%s/%s, Kind=%s", crd.Spec.Group, version.Name, crd.Spec.Names.Kind)
			into[kind] = resource
		}
	}
}

func newCustomResource(
	crd *apiextensionsv1.CustomResourceDefinition, version apiextensionsv1.CustomResourceDefinitionVersion,
) (*customResource, error) {
	var properties apiextensions.JSONSchemaProps
	err := apiextensionsv1.Convert_v1_JSONSchemaProps_To_apiextensions_JSONSchemaProps(
		version.Schema.OpenAPIV3Schema, &properties, nil)
	if err != nil {
		return nil, err
	}
	schema, err := structural.NewStructural(&properties)
	if err != nil {
		return nil, err
	}
	validator, _, err := validation.NewSchemaValidator(&properties)
	if err != nil {
		return nil, err
	}
	return &customResource{
		namespaced: crd.Spec.Scope == apiextensionsv1.NamespaceScoped,
		schema:     schema,
		validator:  validator,
		rules:      cel.NewValidator(schema, true, celconfig.PerCallLimit),
	}, nil
}

// check follows the API server's order: unknown fields, metadata, defaults, schema, rules.
func (r *customResource) check(object *unstructured.Unstructured) []error {
	var wrong []error
	unknown := pruning.PruneWithOptions(object.Object, r.schema, true,
		structural.UnknownFieldPathOptions{TrackUnknownFieldPaths: true})
	for _, path := range unknown {
		wrong = append(wrong, fmt.Errorf("%s: unknown field", path))
	}
	failed, unknown := objectmeta.CoerceWithOptions(nil, object.Object, r.schema, true,
		objectmeta.CoerceOptions{ReturnUnknownFieldPaths: true})
	if failed != nil {
		wrong = append(wrong, failed)
	}
	for _, path := range unknown {
		wrong = append(wrong, fmt.Errorf("%s: unknown field", path))
	}
	defaulting.Default(object.Object, r.schema)
	found := apivalidation.ValidateObjectMetaAccessor(object, r.namespaced,
		apivalidation.NameIsDNSSubdomain, field.NewPath("metadata"))
	found = append(found, validation.ValidateCustomResource(nil, object.Object, r.validator)...)
	found = append(found, listtype.ValidateListSetsAndMaps(nil, r.schema, object.Object)...)
	if len(found) == 0 {
		ruled, _ := r.rules.Validate(context.Background(), nil, r.schema, object.Object, nil,
			celconfig.RuntimeCELCostBudget)
		found = append(found, ruled...)
	}
	for _, failure := range found {
		wrong = append(wrong, failure)
	}
	return wrong
}
