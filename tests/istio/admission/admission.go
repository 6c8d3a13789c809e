// Package admission answers what a ValidatingAdmissionPolicy says to an object, evaluated as the
// API server does.
package admission

import (
	"context"
	"fmt"

	"github.com/google/cel-go/cel"
	admissionv1 "k8s.io/api/admissionregistration/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apiserver/pkg/admission"
	plugincel "k8s.io/apiserver/pkg/admission/plugin/cel"
	celconfig "k8s.io/apiserver/pkg/apis/cel"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/cel/environment"
)

// Policy is compiled.
type Policy struct {
	conditions, validations plugincel.ConditionEvaluator
	messages                []string
}

type expression string

func (e expression) GetExpression() string    { return string(e) }
func (e expression) ReturnTypes() []*cel.Type { return []*cel.Type{cel.BoolType} }

// Compile takes the policy as it stands in a manifest.
func Compile(object *unstructured.Unstructured) (*Policy, error) {
	var written admissionv1.ValidatingAdmissionPolicy
	err := runtime.DefaultUnstructuredConverter.FromUnstructuredWithValidation(object.Object, &written, true)
	if err != nil {
		return nil, err
	}
	compiler, err := plugincel.NewCompositedCompiler(
		environment.MustBaseEnvSet(environment.DefaultCompatibilityVersion()))
	if err != nil {
		return nil, err
	}
	var conditions, validations []plugincel.ExpressionAccessor
	policy := &Policy{}
	for _, condition := range written.Spec.MatchConditions {
		conditions = append(conditions, expression(condition.Expression))
	}
	for _, validation := range written.Spec.Validations {
		validations = append(validations, expression(validation.Expression))
		policy.messages = append(policy.messages, validation.Message)
	}
	variables := plugincel.OptionalVariableDeclarations{}
	policy.conditions = compiler.CompileCondition(conditions, variables, environment.StoredExpressions)
	policy.validations = compiler.CompileCondition(validations, variables, environment.StoredExpressions)
	return policy, nil
}

// Refuses answers the messages of what the object breaks; none where the policy does not apply.
func (p *Policy) Refuses(object *unstructured.Unstructured) ([]string, error) {
	kind := object.GroupVersionKind()
	resource := schema.GroupVersionResource{Group: kind.Group, Version: kind.Version, Resource: "wasmplugins"}
	attributes, err := admission.NewVersionedAttributes(
		admission.NewAttributesRecord(object, nil, kind, object.GetNamespace(), object.GetName(), resource,
			"", admission.Create, nil, false, &user.DefaultInfo{}),
		kind, nil)
	if err != nil {
		return nil, err
	}
	request := plugincel.CreateAdmissionRequest(attributes, metav1.GroupVersionResource(resource),
		metav1.GroupVersionKind(kind))
	ask := func(evaluator plugincel.ConditionEvaluator) ([]bool, error) {
		results, _, err := evaluator.ForInput(context.Background(), attributes, request,
			plugincel.OptionalVariableBindings{}, nil, celconfig.RuntimeCELCostBudget)
		if err != nil {
			return nil, err
		}
		var answers []bool
		for _, result := range results {
			if result.Error != nil {
				return nil, result.Error
			}
			answer, ok := result.EvalResult.Value().(bool)
			if !ok {
				return nil, fmt.Errorf("%q is no answer", result.EvalResult)
			}
			answers = append(answers, answer)
		}
		return answers, nil
	}
	applies, err := ask(p.conditions)
	if err != nil {
		return nil, err
	}
	for _, yes := range applies {
		if !yes {
			return nil, nil
		}
	}
	answers, err := ask(p.validations)
	if err != nil {
		return nil, err
	}
	var messages []string
	for index, fine := range answers {
		if !fine {
			messages = append(messages, p.messages[index])
		}
	}
	return messages, nil
}
