package schema

import (
	"fmt"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	gvk "k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/kubernetes/pkg/api/legacyscheme"
	podoptions "k8s.io/kubernetes/pkg/api/pod"
	"k8s.io/kubernetes/pkg/apis/admissionregistration"
	_ "k8s.io/kubernetes/pkg/apis/admissionregistration/install"
	admissionvalidation "k8s.io/kubernetes/pkg/apis/admissionregistration/validation"
	"k8s.io/kubernetes/pkg/apis/apps"
	_ "k8s.io/kubernetes/pkg/apis/apps/install"
	appsvalidation "k8s.io/kubernetes/pkg/apis/apps/validation"
	"k8s.io/kubernetes/pkg/apis/autoscaling"
	_ "k8s.io/kubernetes/pkg/apis/autoscaling/install"
	autoscalingvalidation "k8s.io/kubernetes/pkg/apis/autoscaling/validation"
	"k8s.io/kubernetes/pkg/apis/core"
	_ "k8s.io/kubernetes/pkg/apis/core/install"
	corevalidation "k8s.io/kubernetes/pkg/apis/core/validation"
	"k8s.io/kubernetes/pkg/apis/networking"
	_ "k8s.io/kubernetes/pkg/apis/networking/install"
	networkingvalidation "k8s.io/kubernetes/pkg/apis/networking/validation"
	"k8s.io/kubernetes/pkg/apis/policy"
	_ "k8s.io/kubernetes/pkg/apis/policy/install"
	policyvalidation "k8s.io/kubernetes/pkg/apis/policy/validation"
	_ "k8s.io/kubernetes/pkg/apis/rbac/install"
	rbacvalidation "k8s.io/kubernetes/pkg/apis/rbac/validation"
)

// builtin are the kinds that istio/ uses, with the API server's validation of new objects.
var builtin = map[gvk.GroupVersionKind]func(runtime.Object) field.ErrorList{
	kind("", "v1", "Namespace"):      on(corevalidation.ValidateNamespace),
	kind("", "v1", "ServiceAccount"): on(corevalidation.ValidateServiceAccount),
	kind("", "v1", "Service"): on(func(service *core.Service) field.ErrorList {
		// The API server has given it a port before it validates.
		if service.Spec.ExternalTrafficPolicy == core.ServiceExternalTrafficPolicyLocal {
			service.Spec.HealthCheckNodePort = 30000
		}
		return corevalidation.ValidateServiceCreate(service)
	}),
	kind("", "v1", "Secret"):    on(corevalidation.ValidateSecret),
	kind("", "v1", "ConfigMap"): on(corevalidation.ValidateConfigMap),
	kind("", "v1", "Pod"): on(func(pod *core.Pod) field.ErrorList {
		options := podoptions.GetValidationOptionsFromPodSpecAndMeta(&pod.Spec, nil, &pod.ObjectMeta, nil)
		return corevalidation.ValidatePodCreate(pod, options)
	}),
	kind("apps", "v1", "Deployment"): on(func(deployment *apps.Deployment) field.ErrorList {
		options := podoptions.GetValidationOptionsFromPodTemplate(&deployment.Spec.Template, nil)
		return appsvalidation.ValidateDeployment(deployment, options)
	}),
	kind("apps", "v1", "StatefulSet"): on(func(set *apps.StatefulSet) field.ErrorList {
		options := podoptions.GetValidationOptionsFromPodTemplate(&set.Spec.Template, nil)
		return appsvalidation.ValidateStatefulSet(set, appsvalidation.StatefulSetValidationOptions{}, options)
	}),
	kind("autoscaling", "v2", "HorizontalPodAutoscaler"): on(
		func(scaler *autoscaling.HorizontalPodAutoscaler) field.ErrorList {
			return autoscalingvalidation.ValidateHorizontalPodAutoscaler(
				scaler, autoscalingvalidation.HorizontalPodAutoscalerSpecValidationOptions{})
		}),
	kind("policy", "v1", "PodDisruptionBudget"): on(
		func(budget *policy.PodDisruptionBudget) field.ErrorList {
			return policyvalidation.ValidatePodDisruptionBudget(
				budget, policyvalidation.PodDisruptionBudgetValidationOptions{})
		}),
	kind("networking.k8s.io", "v1", "NetworkPolicy"): on(
		func(rules *networking.NetworkPolicy) field.ErrorList {
			return networkingvalidation.ValidateNetworkPolicy(
				rules, networkingvalidation.NetworkPolicyValidationOptions{})
		}),
	kind("rbac.authorization.k8s.io", "v1", "Role"):        on(rbacvalidation.ValidateRole),
	kind("rbac.authorization.k8s.io", "v1", "RoleBinding"): on(rbacvalidation.ValidateRoleBinding),
	kind("admissionregistration.k8s.io", "v1", "ValidatingAdmissionPolicy"): on(
		func(rules *admissionregistration.ValidatingAdmissionPolicy) field.ErrorList {
			return admissionvalidation.ValidateValidatingAdmissionPolicy(rules)
		}),
	kind("admissionregistration.k8s.io", "v1", "ValidatingAdmissionPolicyBinding"): on(
		func(binding *admissionregistration.ValidatingAdmissionPolicyBinding) field.ErrorList {
			return admissionvalidation.ValidateValidatingAdmissionPolicyBinding(binding)
		}),
}

func kind(group, version, name string) gvk.GroupVersionKind {
	return gvk.GroupVersionKind{Group: group, Version: version, Kind: name}
}

// on adapts a validation of an internal type.
func on[T runtime.Object](validate func(T) field.ErrorList) func(runtime.Object) field.ErrorList {
	return func(object runtime.Object) field.ErrorList {
		typed, ok := object.(T)
		if !ok {
			return field.ErrorList{field.InternalError(nil, fmt.Errorf("decoded as %T", object))}
		}
		return validate(typed)
	}
}

var strict = serializer.NewCodecFactory(legacyscheme.Scheme, serializer.EnableStrict)

// checkBuiltin decodes strictly, which sets the defaults too, and validates what came out.
func checkBuiltin(
	object *unstructured.Unstructured, validate func(runtime.Object) field.ErrorList,
) []error {
	text, err := object.MarshalJSON()
	if err != nil {
		return []error{err}
	}
	versioned, _, err := strict.UniversalDeserializer().Decode(text, nil, nil)
	if err != nil {
		return []error{err}
	}
	legacyscheme.Scheme.Default(versioned)
	inside := gvk.GroupVersion{Group: object.GroupVersionKind().Group, Version: runtime.APIVersionInternal}
	internal, err := legacyscheme.Scheme.ConvertToVersion(versioned, inside)
	if err != nil {
		return []error{err}
	}
	var wrong []error
	for _, failure := range validate(internal) {
		wrong = append(wrong, failure)
	}
	return wrong
}
