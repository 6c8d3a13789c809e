package node

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// pod is one that was given to this node.
type pod struct {
	node   *Node
	object *corev1.Pod
	// name is that of its network, address the one in it.
	name, address string
	folder        string
	volumes       map[string]string

	mutex    sync.Mutex
	inits    []*container
	mains    []*container
	phase    corev1.PodPhase
	reason   string
	leaving  bool
	lastSent string
	gone     chan struct{}
}

func (p *pod) log(container string) string {
	return filepath.Join(p.node.logs, fmt.Sprintf("%s_%s_%s.log", p.object.Namespace, p.object.Name, container))
}

func (p *pod) path() string {
	return fmt.Sprintf("/api/v1/namespaces/%s/pods/%s", p.object.Namespace, p.object.Name)
}

// live runs the pod from its network to its end.
func (p *pod) live() {
	if err := p.start(); err != nil {
		p.fail(err)
	}
}

func (p *pod) start() error {
	var sysctls []corev1.Sysctl
	if security := p.object.Spec.SecurityContext; security != nil {
		sysctls = security.Sysctls
	}
	if err := plug(p.name, p.address, sysctls); err != nil {
		return err
	}
	p.object.Status.PodIP, p.object.Status.HostIP = p.address, gateway
	p.report()
	volumes, err := p.waitVolumes()
	if err != nil {
		return err
	}
	p.volumes = volumes
	for index := range p.object.Spec.InitContainers {
		if err := p.initialise(&p.object.Spec.InitContainers[index]); err != nil {
			return err
		}
	}
	p.set(corev1.PodRunning)
	for index := range p.object.Spec.Containers {
		go p.keep(&p.object.Spec.Containers[index], &p.mains)
	}
	return nil
}

// waitVolumes tries again for what somebody has still to make, such as Istio's root certificate.
func (p *pod) waitVolumes() (map[string]string, error) {
	var err error
	for range 150 {
		var volumes map[string]string
		if volumes, err = p.node.volumes(p.object, p.folder); err == nil || p.isLeaving() {
			return volumes, err
		}
		time.Sleep(200 * time.Millisecond)
	}
	return nil, err
}

// initialise runs one init container to its end; a sidecar (restartPolicy Always) until it has started.
func (p *pod) initialise(spec *corev1.Container) error {
	if spec.RestartPolicy != nil && *spec.RestartPolicy == corev1.ContainerRestartPolicyAlways {
		go p.keep(spec, &p.inits)
		for !p.isLeaving() {
			p.mutex.Lock()
			started := false
			for _, each := range p.inits {
				if each.spec == spec {
					started, _ = each.state()
				}
			}
			p.mutex.Unlock()
			if started {
				return nil
			}
			time.Sleep(50 * time.Millisecond)
		}
		return fmt.Errorf("%s was not started before the pod had to go", spec.Name)
	}
	begun, err := p.begin(spec)
	if err != nil {
		return fmt.Errorf("%s: %w", spec.Name, err)
	}
	<-begun.ended
	if begun.code != 0 {
		return fmt.Errorf("%s ended with %d: %s", spec.Name, begun.code, begun.log)
	}
	return nil
}

// keep runs a container, again and again where its pod wants that.
func (p *pod) keep(spec *corev1.Container, list *[]*container) {
	again := p.object.Spec.RestartPolicy == corev1.RestartPolicyAlways || spec.RestartPolicy != nil
	position, restarts := -1, int32(0)
	for {
		begun, err := p.begin(spec)
		if err != nil && again && !p.isLeaving() {
			// An image that is not there may come.
			fmt.Printf("%s/%s: %s: %v\n", p.object.Namespace, p.object.Name, spec.Name, err)
			time.Sleep(5 * time.Second)
			continue
		}
		if err != nil {
			p.fail(fmt.Errorf("%s: %w", spec.Name, err))
			return
		}
		begun.restarts = restarts
		p.mutex.Lock()
		if position < 0 {
			position = len(*list)
			*list = append(*list, begun)
		} else {
			(*list)[position] = begun
		}
		leaving := p.leaving
		p.mutex.Unlock()
		if leaving {
			begun.end(0)
		}
		p.watch(begun, p.report)
		if p.isLeaving() {
			return
		}
		if !again {
			p.finish()
			return
		}
		fmt.Printf("%s/%s: %s ended with %d, again\n", p.object.Namespace, p.object.Name, spec.Name, begun.code)
		restarts++
		time.Sleep(time.Duration(min(restarts, 5)) * time.Second)
	}
}

// finish says how a pod that is not run again has ended, once all of it has.
func (p *pod) finish() {
	p.mutex.Lock()
	phase := corev1.PodSucceeded
	for _, each := range p.mains {
		if each.running() {
			p.mutex.Unlock()
			return
		}
		if each.code != 0 {
			phase = corev1.PodFailed
		}
	}
	p.mutex.Unlock()
	p.stop(0)
	p.set(phase)
}

// leave ends the pod as its deletion asks: the containers, then sidecars, the last one first.
func (p *pod) leave(grace time.Duration) {
	p.mutex.Lock()
	already := p.leaving
	p.leaving = true
	p.mutex.Unlock()
	if already {
		return
	}
	go func() {
		p.report()
		p.stop(grace)
		unplug(p.name)
		now := int64(0)
		uid := p.object.UID
		err := p.node.api.delete(p.path(), &metav1.DeleteOptions{
			TypeMeta:           metav1.TypeMeta{APIVersion: "v1", Kind: "DeleteOptions"},
			GracePeriodSeconds: &now, Preconditions: &metav1.Preconditions{UID: &uid}})
		if err != nil {
			fmt.Println(err)
		}
		close(p.gone)
	}()
}

func (p *pod) stop(grace time.Duration) {
	until := time.Now().Add(grace)
	p.mutex.Lock()
	mains, inits := append([]*container{}, p.mains...), append([]*container{}, p.inits...)
	p.mutex.Unlock()
	var all sync.WaitGroup
	for _, each := range mains {
		all.Add(1)
		go func() { defer all.Done(); each.end(time.Until(until)) }()
	}
	all.Wait()
	for index := len(inits) - 1; index >= 0; index-- {
		inits[index].end(time.Until(until))
	}
}

func (p *pod) isLeaving() bool {
	p.mutex.Lock()
	defer p.mutex.Unlock()
	return p.leaving
}

func (p *pod) set(phase corev1.PodPhase) {
	p.mutex.Lock()
	p.phase = phase
	p.mutex.Unlock()
	p.report()
}

func (p *pod) fail(err error) {
	fmt.Printf("%s/%s: %v\n", p.object.Namespace, p.object.Name, err)
	p.mutex.Lock()
	p.phase, p.reason = corev1.PodFailed, err.Error()
	p.mutex.Unlock()
	p.report()
}

// report tells the API server how the pod is, where that has changed.
func (p *pod) report() {
	p.mutex.Lock()
	defer p.mutex.Unlock()
	status := p.status()
	text, err := json.Marshal(status)
	if err != nil || string(text) == p.lastSent {
		return
	}
	if err := p.node.api.ask("PATCH", p.path()+"/status", "application/merge-patch+json",
		map[string]any{"status": json.RawMessage(text)}, nil); err != nil {
		fmt.Println(err)
		return
	}
	p.lastSent = string(text)
}

func (p *pod) status() corev1.PodStatus {
	ready := p.phase == corev1.PodRunning && !p.leaving && len(p.mains) == len(p.object.Spec.Containers)
	status := corev1.PodStatus{Phase: p.phase, Message: p.reason, PodIP: p.address, HostIP: gateway,
		PodIPs: []corev1.PodIP{{IP: p.address}}, HostIPs: []corev1.HostIP{{IP: gateway}}, StartTime: &p.node.began}
	describe := func(list []*container) (all []corev1.ContainerStatus) {
		for _, each := range list {
			started, isReady := each.state()
			if p.leaving {
				isReady = false
			}
			ready = ready && isReady
			one := corev1.ContainerStatus{Name: each.spec.Name, Image: each.spec.Image, ImageID: each.spec.Image,
				Started: &started, Ready: isReady, RestartCount: each.restarts}
			if each.running() {
				one.State.Running = &corev1.ContainerStateRunning{StartedAt: metav1.NewTime(each.since)}
			} else {
				one.State.Terminated = &corev1.ContainerStateTerminated{ExitCode: int32(each.code)}
			}
			all = append(all, one)
		}
		return all
	}
	status.InitContainerStatuses = describe(p.inits)
	status.ContainerStatuses = describe(p.mains)
	for kind, holds := range map[corev1.PodConditionType]bool{corev1.PodScheduled: true,
		corev1.PodInitialized: p.phase == corev1.PodRunning, corev1.ContainersReady: ready, corev1.PodReady: ready} {
		condition := corev1.PodCondition{Type: kind, Status: corev1.ConditionFalse, LastTransitionTime: p.node.began}
		if holds {
			condition.Status = corev1.ConditionTrue
		}
		status.Conditions = append(status.Conditions, condition)
	}
	sortConditions(status.Conditions)
	return status
}

func (p *pod) clean() { _ = os.RemoveAll(p.folder) }
