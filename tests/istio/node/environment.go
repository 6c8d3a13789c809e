package node

import (
	"fmt"
	"math"
	"regexp"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
)

// environment is what the container's `env` and `envFrom` come to, as NAME=VALUE, and the values by name
// for the arguments. Variables that name Services are left out, but for the API server's.
func (n *Node) environment(pod *corev1.Pod, container *corev1.Container) ([]string, map[string]string, error) {
	values := map[string]string{}
	var order []string
	set := func(name, value string) {
		if _, there := values[name]; !there {
			order = append(order, name)
		}
		values[name] = value
	}
	set("PATH", "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin")
	set("HOSTNAME", pod.Name)
	set("KUBERNETES_SERVICE_HOST", n.serviceHost)
	set("KUBERNETES_SERVICE_PORT", "443")
	for _, from := range container.EnvFrom {
		var found map[string]string
		var err error
		switch {
		case from.ConfigMapRef != nil:
			found, err = n.configMap(pod.Namespace, from.ConfigMapRef.Name, isTrue(from.ConfigMapRef.Optional))
		case from.SecretRef != nil:
			found, err = n.secret(pod.Namespace, from.SecretRef.Name, isTrue(from.SecretRef.Optional))
		}
		if err != nil {
			return nil, nil, err
		}
		for name, value := range found {
			set(from.Prefix+name, value)
		}
	}
	for _, each := range container.Env {
		value := expand(each.Value, values)
		if each.ValueFrom != nil {
			found, present, err := n.variable(pod, container, each.ValueFrom)
			if err != nil {
				return nil, nil, fmt.Errorf("variable %s: %w", each.Name, err)
			}
			if !present {
				continue
			}
			value = found
		}
		set(each.Name, value)
	}
	var all []string
	for _, name := range order {
		all = append(all, name+"="+values[name])
	}
	return all, values, nil
}

func (n *Node) variable(pod *corev1.Pod, container *corev1.Container, source *corev1.EnvVarSource) (string, bool, error) {
	switch {
	case source.FieldRef != nil:
		value, err := field(pod, source.FieldRef.FieldPath)
		return value, true, err
	case source.ResourceFieldRef != nil:
		value, err := limit(container, source.ResourceFieldRef)
		return value, true, err
	case source.SecretKeyRef != nil:
		values, err := n.secret(pod.Namespace, source.SecretKeyRef.Name, isTrue(source.SecretKeyRef.Optional))
		value, there := values[source.SecretKeyRef.Key]
		return value, there, err
	case source.ConfigMapKeyRef != nil:
		values, err := n.configMap(pod.Namespace, source.ConfigMapKeyRef.Name, isTrue(source.ConfigMapKeyRef.Optional))
		value, there := values[source.ConfigMapKeyRef.Key]
		return value, there, err
	}
	return "", false, fmt.Errorf("a source that the lab does not know")
}

// field is one of the downward API's.
func field(pod *corev1.Pod, path string) (string, error) {
	switch path {
	case "metadata.name":
		return pod.Name, nil
	case "metadata.namespace":
		return pod.Namespace, nil
	case "metadata.uid":
		return string(pod.UID), nil
	case "metadata.labels":
		return pairs(pod.Labels), nil
	case "metadata.annotations":
		return pairs(pod.Annotations), nil
	case "spec.nodeName":
		return pod.Spec.NodeName, nil
	case "spec.serviceAccountName":
		return pod.Spec.ServiceAccountName, nil
	case "status.podIP", "status.podIPs":
		return pod.Status.PodIP, nil
	case "status.hostIP":
		return pod.Status.HostIP, nil
	}
	for prefix, values := range map[string]map[string]string{"metadata.labels['": pod.Labels,
		"metadata.annotations['": pod.Annotations} {
		if key, ok := strings.CutPrefix(path, prefix); ok {
			return values[strings.TrimSuffix(key, "']")], nil
		}
	}
	return "", fmt.Errorf("field %s", path)
}

// pairs is how the downward API writes labels: a line each.
func pairs(values map[string]string) string {
	var lines []string
	for name, value := range values {
		lines = append(lines, name+"="+strconv.Quote(value))
	}
	return strings.Join(lines, "\n")
}

// limit is one of a container's resources; where it has none, what a small machine would have.
func limit(container *corev1.Container, reference *corev1.ResourceFieldSelector) (string, error) {
	kind, name, _ := strings.Cut(reference.Resource, ".")
	list := container.Resources.Limits
	if kind == "requests" {
		list = container.Resources.Requests
	}
	quantity, there := list[corev1.ResourceName(name)]
	if !there {
		quantity = resource.MustParse(map[string]string{"cpu": "2", "memory": "1Gi"}[name])
	}
	divisor := reference.Divisor.AsApproximateFloat64()
	if divisor == 0 {
		divisor = 1
	}
	return strconv.FormatInt(int64(math.Ceil(quantity.AsApproximateFloat64()/divisor)), 10), nil
}

var variable = regexp.MustCompile(`\$\$|\$\(([A-Za-z_][A-Za-z0-9_.-]*)\)`)

// expand writes values in the place of $(NAME); $$ is a dollar, and a name without a value stays.
func expand(text string, values map[string]string) string {
	return variable.ReplaceAllStringFunc(text, func(found string) string {
		if found == "$$" {
			return "$"
		}
		if value, there := values[found[2:len(found)-1]]; there {
			return value
		}
		return found
	})
}

func isTrue(value *bool) bool { return value != nil && *value }
