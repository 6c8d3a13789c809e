package node

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"net/http"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health/grpc_health_v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// asks says whether a probe succeeds now. A probe by a command counts as a failure.
func asks(probe *corev1.Probe, spec *corev1.Container, address string) bool {
	ctx, cancel := context.WithTimeout(context.Background(), max(1, time.Duration(probe.TimeoutSeconds))*time.Second)
	defer cancel()
	switch {
	case probe.HTTPGet != nil:
		return answersHTTP(ctx, probe.HTTPGet, place(address, probe.HTTPGet.Port, spec))
	case probe.TCPSocket != nil:
		var dialer net.Dialer
		connection, err := dialer.DialContext(ctx, "tcp", place(address, probe.TCPSocket.Port, spec))
		if err == nil {
			connection.Close()
		}
		return err == nil
	case probe.GRPC != nil:
		return isServing(ctx, place(address, intstr.FromInt32(probe.GRPC.Port), spec), probe.GRPC.Service)
	}
	return false
}

func place(address string, port intstr.IntOrString, spec *corev1.Container) string {
	number := port.IntVal
	for _, each := range spec.Ports {
		if port.Type == intstr.String && each.Name == port.StrVal {
			number = each.ContainerPort
		}
	}
	return net.JoinHostPort(address, fmt.Sprint(number))
}

// prober trusts any certificate and follows nothing, as a kubelet's probes.
var prober = http.Client{
	Transport: &http.Transport{DisableKeepAlives: true, TLSClientConfig: &tls.Config{InsecureSkipVerify: true}},
}

func answersHTTP(ctx context.Context, get *corev1.HTTPGetAction, place string) bool {
	scheme := "http"
	if get.Scheme == corev1.URISchemeHTTPS {
		scheme = "https"
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, scheme+"://"+place+get.Path, nil)
	if err != nil {
		return false
	}
	response, err := prober.Do(request)
	if err != nil {
		return false
	}
	response.Body.Close()
	return response.StatusCode < 400
}

func isServing(ctx context.Context, place string, service *string) bool {
	connection, err := grpc.NewClient(place, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return false
	}
	defer connection.Close()
	request := &grpc_health_v1.HealthCheckRequest{}
	if service != nil {
		request.Service = *service
	}
	answer, err := grpc_health_v1.NewHealthClient(connection).Check(ctx, request)
	return err == nil && answer.Status == grpc_health_v1.HealthCheckResponse_SERVING
}

// watch keeps a container's state up to date until it ends: started when its startup probe has
// succeeded once, ready while its readiness probe does.
func (p *pod) watch(c *container, changed func()) {
	started, ready := false, false
	for {
		period := time.Second
		before := [2]bool{started, ready}
		if !started {
			started = c.spec.StartupProbe == nil || asks(c.spec.StartupProbe, c.spec, p.address)
			period = 200 * time.Millisecond
		}
		if started {
			ready = c.spec.ReadinessProbe == nil || asks(c.spec.ReadinessProbe, c.spec, p.address)
			if !ready {
				period = 200 * time.Millisecond
			}
		}
		c.set(started, ready)
		if before != [2]bool{started, ready} {
			changed()
		}
		select {
		case <-c.ended:
			c.set(started, false)
			changed()
			return
		case <-time.After(period):
		}
	}
}
