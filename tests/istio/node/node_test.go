package node

import (
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func TestArgumentsAreExpandedAsAKubeletDoes(t *testing.T) {
	values := map[string]string{"NAME": "ann", "A_B": "1"}
	for text, expected := range map[string]string{
		"$(NAME).svc": "ann.svc", "$$(NAME)": "$(NAME)", "$(OTHER)": "$(OTHER)", "$(A_B)$(A_B)": "11", "$NAME": "$NAME",
	} {
		if found := expand(text, values); found != expected {
			t.Errorf("%s became %s, not %s", text, found, expected)
		}
	}
}

func TestAServiceIsSpreadOverWhateverIsReady(t *testing.T) {
	port, name, ready := int32(9443), "grpc", false
	meta := metav1.ObjectMeta{Name: "companion", Namespace: "meshgate"}
	service := corev1.Service{ObjectMeta: meta, Spec: corev1.ServiceSpec{ClusterIP: "10.2.0.9",
		Ports: []corev1.ServicePort{{Name: name, Port: 443}}}}
	slice := discoveryv1.EndpointSlice{
		ObjectMeta: metav1.ObjectMeta{Namespace: "meshgate", Labels: map[string]string{discoveryv1.LabelServiceName: "companion"}},
		Ports:      []discoveryv1.EndpointPort{{Name: &name, Port: &port}},
		Endpoints: []discoveryv1.Endpoint{{Addresses: []string{"10.1.0.3"}}, {Addresses: []string{"10.1.0.2"}},
			{Addresses: []string{"10.1.0.4"}, Conditions: discoveryv1.EndpointConditions{Ready: &ready}}},
	}
	found := rules([]corev1.Service{service}, []discoveryv1.EndpointSlice{slice})
	for _, expected := range []string{
		"-A SERVICES -d 10.2.0.9/32 -p tcp --dport 443 -m statistic --mode random --probability 0.50000 -j DNAT --to-destination 10.1.0.2:9443\n",
		"-A SERVICES -d 10.2.0.9/32 -p tcp --dport 443 -j DNAT --to-destination 10.1.0.3:9443\n",
	} {
		if !strings.Contains(found, expected) {
			t.Errorf("%s\nis not in\n%s", expected, found)
		}
	}
	if strings.Contains(found, "10.1.0.4") {
		t.Error("what is not ready gets traffic")
	}
}
