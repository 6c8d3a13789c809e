// Package node stands in for a cluster's node, where there is no kubelet: it takes every pod that the API
// server has, and runs what is in it as processes of this machine, with the command, the arguments, the
// environment, the files, the user and the network that the pod says. Everything else in the lab is
// Kubernetes' own: the API server, its admission, and the controllers that make pods of Deployments.
//
//	API server --pods--> Node --> pod --> container --(nsenter)--> Become --> the program
//
// What it does not do: pull images (they are layouts in a folder, or programs that were named), limit
// memory or processors, forbid system calls, enforce NetworkPolicies, probe for liveness.
package node

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

const name = "lab"

// Config is what a node is told.
type Config struct {
	// Server is the API server's address, Token one with every right.
	Server, Token string
	// State is a folder for what pods leave behind, Logs one for what they print.
	State, Logs string
	// Images is the folder of scripts/image; Programs is a file of what stands for other images, by
	// the last part of their names: { NAME: { entrypoint, user, files: { PLACE: FILE } } }.
	Images, Programs string
	// HostNames are further lines of /etc/hosts.
	HostNames string
}

// Node is one that runs.
type Node struct {
	api                    *api
	images                 *images
	state, logs, hostNames string
	serviceHost            string
	began                  metav1.Time
	pods                   map[types.UID]*pod
	taken                  int
	rules, hosts           string
	bound                  map[types.UID]bool
}

// New makes the node known to the API server.
func New(config Config) (*Node, error) {
	n := &Node{
		api:   newAPI(config.Server, config.Token),
		state: config.State, logs: config.Logs, hostNames: config.HostNames,
		serviceHost: "10.2.0.1",
		began:       metav1.NewTime(time.Now().Truncate(time.Second)),
		pods:        map[types.UID]*pod{}, bound: map[types.UID]bool{},
		images: &images{layouts: config.Images, unpacked: filepath.Join(config.State, "images")},
	}
	if err := readJSON(config.Programs, &n.images.programs); err != nil {
		return nil, err
	}
	for _, folder := range []string{n.state, n.logs} {
		if err := os.MkdirAll(folder, 0o755); err != nil {
			return nil, err
		}
	}
	if err := os.WriteFile(n.hostsFile(), nil, 0o644); err != nil {
		return nil, err
	}
	if err := prepareNetwork(); err != nil {
		return nil, err
	}
	return n, n.register()
}

func (n *Node) register() error {
	object := corev1.Node{
		TypeMeta:   metav1.TypeMeta{APIVersion: "v1", Kind: "Node"},
		ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{"kubernetes.io/hostname": name}},
	}
	if err := n.api.post("/api/v1/nodes", &object, nil); err != nil && !strings.Contains(err.Error(), "409") {
		return err
	}
	status := corev1.NodeStatus{
		Addresses: []corev1.NodeAddress{{Type: corev1.NodeInternalIP, Address: gateway}},
		Conditions: []corev1.NodeCondition{{Type: corev1.NodeReady, Status: corev1.ConditionTrue,
			Reason: "Lab", LastHeartbeatTime: n.began, LastTransitionTime: n.began}},
	}
	return n.api.patch("/api/v1/nodes/"+name+"/status", map[string]any{"status": status})
}

// Run goes on until `stop` is closed, and leaves no process behind.
func (n *Node) Run(stop <-chan struct{}) {
	for {
		for _, err := range []error{n.keepServices(), n.bindClaims(), n.keepPods()} {
			if err != nil {
				fmt.Println(err)
			}
		}
		select {
		case <-stop:
			for _, each := range n.pods {
				each.mutex.Lock()
				each.leaving = true
				each.mutex.Unlock()
				each.stop(0)
				unplug(each.name)
			}
			return
		case <-time.After(300 * time.Millisecond):
		}
	}
}

func (n *Node) keepPods() error {
	var list corev1.PodList
	if err := n.api.get("/api/v1/pods", &list); err != nil {
		return err
	}
	there := map[types.UID]bool{}
	for index := range list.Items {
		object := &list.Items[index]
		there[object.UID] = true
		ours, known := n.pods[object.UID]
		switch {
		case known && object.DeletionTimestamp != nil:
			grace := int64(0)
			if object.DeletionGracePeriodSeconds != nil {
				grace = *object.DeletionGracePeriodSeconds
			}
			ours.leave(time.Duration(grace) * time.Second)
		case !known && object.DeletionTimestamp == nil && object.Spec.NodeName == "":
			if err := n.take(object); err != nil {
				return err
			}
		}
	}
	for uid, ours := range n.pods {
		if !there[uid] {
			ours.leave(0)
			select {
			case <-ours.gone:
				ours.clean()
				delete(n.pods, uid)
			default:
			}
		}
	}
	return nil
}

// take binds a pod to this node and starts it.
func (n *Node) take(object *corev1.Pod) error {
	path := fmt.Sprintf("/api/v1/namespaces/%s/pods/%s/binding", object.Namespace, object.Name)
	binding := corev1.Binding{
		TypeMeta:   metav1.TypeMeta{APIVersion: "v1", Kind: "Binding"},
		ObjectMeta: metav1.ObjectMeta{Name: object.Name, Namespace: object.Namespace, UID: object.UID},
		Target:     corev1.ObjectReference{APIVersion: "v1", Kind: "Node", Name: name},
	}
	if err := n.api.post(path, &binding, nil); err != nil {
		return err
	}
	object.Spec.NodeName = name
	n.taken++
	ours := &pod{node: n, object: object, phase: corev1.PodPending, gone: make(chan struct{}),
		name: fmt.Sprintf("pod%d", n.taken), address: fmt.Sprintf("10.1.%d.%d", n.taken/200, n.taken%200+10),
		folder: filepath.Join(n.state, "pods", string(object.UID))}
	if err := os.MkdirAll(ours.folder, 0o755); err != nil {
		return err
	}
	fmt.Printf("%s/%s: taken, at %s in %s\n", object.Namespace, object.Name, ours.address, ours.name)
	n.pods[object.UID] = ours
	go ours.live()
	return nil
}

func (n *Node) hostsFile() string { return filepath.Join(n.state, "hosts") }

// fixed is a small file that is the same for every container.
func (n *Node) fixed(name, content string) string {
	path := filepath.Join(n.state, name)
	if _, err := os.Stat(path); err != nil {
		_ = os.WriteFile(path, []byte(content), 0o644)
	}
	return path
}

func sortConditions(all []corev1.PodCondition) {
	slices.SortFunc(all, func(a, b corev1.PodCondition) int { return strings.Compare(string(a.Type), string(b.Type)) })
}
