package node

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"sort"
	"strings"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
)

// A pod's network: a namespace of its own, one cable to the node's, and addresses by which every pod
// reaches every other through the node. The addresses of Services are turned into those of pods on the
// node, as kube-proxy would; names are in each container's /etc/hosts, as nobody serves DNS.

// gateway is the node's own address, at the other end of every cable.
const gateway = "10.1.0.1"

// command runs a program that must succeed.
func command(name string, arguments ...string) error { return feed("", name, arguments...) }

func feed(input, name string, arguments ...string) error {
	program := exec.Command(name, arguments...)
	program.Stdin = strings.NewReader(input)
	if said, err := program.CombinedOutput(); err != nil {
		return fmt.Errorf("%s %s: %w: %s", name, strings.Join(arguments, " "), err, bytes.TrimSpace(said))
	}
	return nil
}

// prepareNetwork makes the node route.
func prepareNetwork() error {
	return command("sh", "-ec", `
		ip link set lo up
		ip address add `+gateway+`/32 dev lo
		ip route add 10.2.0.0/16 dev lo
		echo 1 >/proc/sys/net/ipv4/ip_forward
		iptables -t nat -N SERVICES
		iptables -t nat -A PREROUTING -j SERVICES
		iptables -t nat -A OUTPUT -j SERVICES
		iptables -A FORWARD -d 10.2.0.0/16 -j REJECT`)
}

// plug makes the network of a pod. `sysctls` are the pod's own.
func plug(name, address string, sysctls []corev1.Sysctl) error {
	err := command("sh", "-ec", `
		ip netns add "$1"
		ip link add "$1" type veth peer name eth0 netns "$1"
		ip address add `+gateway+`/32 dev "$1"
		ip link set "$1" up
		ip route add "$2" dev "$1"
		ip -n "$1" link set lo up
		ip -n "$1" address add "$2/32" dev eth0
		ip -n "$1" link set eth0 up
		ip -n "$1" route add `+gateway+` dev eth0
		ip -n "$1" route add default via `+gateway, "sh", name, address)
	for _, each := range sysctls {
		if err == nil {
			path := "/proc/sys/" + strings.ReplaceAll(each.Name, ".", "/")
			err = command("ip", "netns", "exec", name, "sh", "-c", `echo "$1" >"$2"`, "sh", each.Value, path)
		}
	}
	return err
}

func unplug(name string) {
	// The cable goes with the namespace.
	_ = command("ip", "netns", "delete", name)
}

// keepServices brings the node's rules and everybody's /etc/hosts up to date.
func (n *Node) keepServices() error {
	var services corev1.ServiceList
	if err := n.api.get("/api/v1/services", &services); err != nil {
		return err
	}
	var slices discoveryv1.EndpointSliceList
	if err := n.api.get("/apis/discovery.k8s.io/v1/endpointslices", &slices); err != nil {
		return err
	}
	if rules := rules(services.Items, slices.Items); rules != n.rules {
		if err := feed(rules, "iptables-restore", "--noflush"); err != nil {
			return err
		}
		n.rules = rules
	}
	for _, service := range services.Items {
		waits := service.Spec.Type == corev1.ServiceTypeLoadBalancer && len(service.Status.LoadBalancer.Ingress) == 0
		if waits {
			path := fmt.Sprintf("/api/v1/namespaces/%s/services/%s/status", service.Namespace, service.Name)
			err := n.api.patch(path, map[string]any{"status": map[string]any{"loadBalancer": map[string]any{
				"ingress": []any{map[string]any{"ip": gateway}}}}})
			if err != nil {
				return err
			}
		}
	}
	return n.writeHosts(services.Items)
}

// rules are the whole of the node's chain SERVICES. A Service of type LoadBalancer answers at the node's
// own address too.
func rules(services []corev1.Service, slices []discoveryv1.EndpointSlice) string {
	var lines []string
	for _, service := range services {
		if service.Spec.ClusterIP == "" || service.Spec.ClusterIP == corev1.ClusterIPNone {
			continue
		}
		addresses := []string{service.Spec.ClusterIP}
		if service.Spec.Type == corev1.ServiceTypeLoadBalancer {
			addresses = append(addresses, gateway)
		}
		for _, port := range service.Spec.Ports {
			ready := endpoints(service, port.Name, slices)
			for _, address := range addresses {
				for index, endpoint := range ready {
					chance := ""
					if left := len(ready) - index; left > 1 {
						chance = fmt.Sprintf(" -m statistic --mode random --probability %.5f", 1/float64(left))
					}
					lines = append(lines, fmt.Sprintf("-A SERVICES -d %s/32 -p tcp --dport %d%s -j DNAT --to-destination %s",
						address, port.Port, chance, endpoint))
				}
			}
		}
	}
	return "*nat\n:SERVICES - [0:0]\n" + strings.Join(append(lines, "COMMIT"), "\n") + "\n"
}

// endpoints are ADDRESS:PORT of whatever is ready for a Service's port.
func endpoints(service corev1.Service, port string, slices []discoveryv1.EndpointSlice) []string {
	var all []string
	for _, slice := range slices {
		if slice.Namespace != service.Namespace || slice.Labels[discoveryv1.LabelServiceName] != service.Name {
			continue
		}
		for _, each := range slice.Ports {
			if each.Port == nil || each.Name == nil || *each.Name != port {
				continue
			}
			for _, endpoint := range slice.Endpoints {
				if endpoint.Conditions.Ready == nil || *endpoint.Conditions.Ready {
					all = append(all, fmt.Sprintf("%s:%d", endpoint.Addresses[0], *each.Port))
				}
			}
		}
	}
	sort.Strings(all)
	return all
}

// writeHosts writes the file that stands in the place of DNS. It is written over, not replaced: it is
// mounted where it is.
func (n *Node) writeHosts(services []corev1.Service) error {
	text := "127.0.0.1 localhost\n" + n.hostNames
	for _, service := range services {
		if service.Spec.ClusterIP != "" && service.Spec.ClusterIP != corev1.ClusterIPNone {
			name := service.Name + "." + service.Namespace
			text += fmt.Sprintf("%s %s.svc.cluster.local %s.svc %s\n", service.Spec.ClusterIP, name, name, name)
		}
	}
	if text == n.hosts {
		return nil
	}
	if err := os.WriteFile(n.hostsFile(), []byte(text), 0o644); err != nil {
		return err
	}
	n.hosts = text
	return nil
}
