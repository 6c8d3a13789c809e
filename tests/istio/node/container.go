package node

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	corev1 "k8s.io/api/core/v1"
)

// container is one that runs, or has run.
type container struct {
	spec *corev1.Container
	log  string
	// ended is closed when the process has; code is valid then.
	ended chan struct{}
	code  int
	pid   int

	mutex          sync.Mutex
	started, ready bool
	restarts       int32
	since          time.Time
}

// begin starts a container of the pod.
func (p *pod) begin(spec *corev1.Container) (*container, error) {
	wanted, err := p.process(spec)
	if err != nil {
		return nil, err
	}
	file := filepath.Join(p.folder, spec.Name+".json")
	text, err := json.Marshal(wanted)
	if err != nil {
		return nil, err
	}
	if err := os.WriteFile(file, text, 0o600); err != nil {
		return nil, err
	}
	begun := &container{spec: spec, log: p.log(spec.Name), ended: make(chan struct{}), since: time.Now()}
	log, err := os.OpenFile(begun.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return nil, err
	}
	defer log.Close()
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	program := exec.Command("nsenter", "--net=/run/netns/"+p.name, self, "container", file)
	program.Stdout, program.Stderr = log, log
	program.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNS | syscall.CLONE_NEWPID, Setsid: true}
	if err := program.Start(); err != nil {
		return nil, err
	}
	begun.pid = program.Process.Pid
	go func() {
		_ = program.Wait()
		begun.code = program.ProcessState.ExitCode()
		if status, ok := program.ProcessState.Sys().(syscall.WaitStatus); ok && status.Signaled() {
			begun.code = 128 + int(status.Signal())
		}
		close(begun.ended)
	}()
	return begun, nil
}

// end asks the process to end, and insists after the grace. With it goes everything that it started: it
// is the first of its namespace.
func (c *container) end(grace time.Duration) {
	_ = syscall.Kill(c.pid, syscall.SIGTERM)
	select {
	case <-c.ended:
	case <-time.After(grace):
		_ = syscall.Kill(c.pid, syscall.SIGKILL)
		<-c.ended
	}
}

func (c *container) running() bool {
	select {
	case <-c.ended:
		return false
	default:
		return true
	}
}

func (c *container) set(started, ready bool) {
	c.mutex.Lock()
	defer c.mutex.Unlock()
	c.started, c.ready = started, ready
}

func (c *container) state() (started, ready bool) {
	c.mutex.Lock()
	defer c.mutex.Unlock()
	return c.started, c.ready
}

// process resolves what the pod says of a container.
func (p *pod) process(spec *corev1.Container) (*process, error) {
	image, err := p.node.images.find(spec.Image)
	if err != nil {
		return nil, err
	}
	environment, values, err := p.node.environment(p.object, spec)
	if err != nil {
		return nil, err
	}
	root := filepath.Join(p.folder, "roots", spec.Name)
	if err := os.MkdirAll(root, 0o755); err != nil {
		return nil, err
	}
	wanted := &process{Root: root, Folders: image.folders, Environment: environment,
		WorkingDirectory: spec.WorkingDir}
	wanted.Arguments = append(wanted.Arguments, image.Entrypoint...)
	if len(spec.Command) > 0 {
		wanted.Arguments = append([]string{}, spec.Command...)
	}
	wanted.Arguments = append(wanted.Arguments, spec.Args...)
	for index, argument := range wanted.Arguments {
		wanted.Arguments[index] = expand(argument, values)
	}
	for place, file := range image.Files {
		wanted.Mounts = append(wanted.Mounts, mount{file, place, true})
	}
	wanted.Mounts = append(wanted.Mounts, mount{p.node.hostsFile(), "/etc/hosts", true},
		mount{p.node.fixed("passwd", "root:x:0:0::/:/bin/sh\nistio-proxy:x:1337:1337::/:/bin/sh\n"), "/etc/passwd", true},
		mount{p.node.fixed("nsswitch.conf", "hosts: files\n"), "/etc/nsswitch.conf", true},
		mount{p.node.fixed("resolv.conf", ""), "/etc/resolv.conf", true})
	for _, each := range spec.VolumeMounts {
		source, there := p.volumes[each.Name]
		if !there {
			return nil, fmt.Errorf("there is no volume %s", each.Name)
		}
		wanted.Mounts = append(wanted.Mounts, mount{filepath.Join(source, each.SubPath), each.MountPath, each.ReadOnly})
	}
	return wanted, p.secure(spec, &image, wanted)
}

// secure is who the process runs as. A container that must not be root and would be is refused, as by a
// kubelet.
func (p *pod) secure(spec *corev1.Container, image *image, wanted *process) error {
	user, group, err := image.identity()
	if err != nil {
		return err
	}
	mustNotBeRoot := false
	if security := p.object.Spec.SecurityContext; security != nil {
		override(&user, security.RunAsUser)
		override(&group, security.RunAsGroup)
		mustNotBeRoot = isTrue(security.RunAsNonRoot)
		if security.FSGroup != nil {
			wanted.Groups = append(wanted.Groups, int(*security.FSGroup))
		}
	}
	if security := spec.SecurityContext; security != nil {
		override(&user, security.RunAsUser)
		override(&group, security.RunAsGroup)
		mustNotBeRoot = mustNotBeRoot && security.RunAsNonRoot == nil || isTrue(security.RunAsNonRoot)
		wanted.ReadOnly = isTrue(security.ReadOnlyRootFilesystem)
	}
	if mustNotBeRoot && user == 0 {
		return errors.New("it must not run as root, and its image does")
	}
	wanted.User, wanted.Group = int(user), int(group)
	return nil
}

func override(value *int64, by *int64) {
	if by != nil {
		*value = *by
	}
}
