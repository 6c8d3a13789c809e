package node

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// volumes makes the pod's volumes and answers where each is. What Secrets and ConfigMaps held at the
// pod's start is what the pod sees for good.
func (n *Node) volumes(pod *corev1.Pod, folder string) (map[string]string, error) {
	all := map[string]string{}
	for _, volume := range pod.Spec.Volumes {
		place := filepath.Join(folder, "volumes", volume.Name)
		if claim := volume.PersistentVolumeClaim; claim != nil {
			place = n.claimFolder(pod.Namespace, claim.ClaimName)
		}
		if err := os.MkdirAll(place, 0o777); err != nil {
			return nil, err
		}
		if err := os.Chmod(place, 0o777); err != nil {
			return nil, err
		}
		if err := n.fill(pod, &volume, place); err != nil {
			return nil, fmt.Errorf("volume %s: %w", volume.Name, err)
		}
		all[volume.Name] = place
	}
	return all, nil
}

func (n *Node) claimFolder(namespace, claim string) string {
	return filepath.Join(n.state, "claims", namespace, claim)
}

func (n *Node) fill(pod *corev1.Pod, volume *corev1.Volume, place string) error {
	switch {
	case volume.EmptyDir != nil, volume.PersistentVolumeClaim != nil:
		return nil
	case volume.Secret != nil:
		from := volume.Secret
		values, err := n.secret(pod.Namespace, from.SecretName, isTrue(from.Optional))
		return lay(pod, place, values, from.Items, from.DefaultMode, err)
	case volume.ConfigMap != nil:
		from := volume.ConfigMap
		values, err := n.configMap(pod.Namespace, from.Name, isTrue(from.Optional))
		return lay(pod, place, values, from.Items, from.DefaultMode, err)
	case volume.DownwardAPI != nil:
		return downward(pod, place, volume.DownwardAPI.Items)
	case volume.Projected != nil:
		for _, source := range volume.Projected.Sources {
			if err := n.project(pod, place, &source, volume.Projected.DefaultMode); err != nil {
				return err
			}
		}
		return nil
	}
	return errors.New("a kind that the lab does not know")
}

func (n *Node) project(pod *corev1.Pod, place string, source *corev1.VolumeProjection, mode *int32) error {
	switch {
	case source.Secret != nil:
		values, err := n.secret(pod.Namespace, source.Secret.Name, isTrue(source.Secret.Optional))
		return lay(pod, place, values, source.Secret.Items, mode, err)
	case source.ConfigMap != nil:
		values, err := n.configMap(pod.Namespace, source.ConfigMap.Name, isTrue(source.ConfigMap.Optional))
		return lay(pod, place, values, source.ConfigMap.Items, mode, err)
	case source.DownwardAPI != nil:
		return downward(pod, place, source.DownwardAPI.Items)
	case source.ServiceAccountToken != nil:
		token, err := n.serviceToken(pod, source.ServiceAccountToken)
		return lay(pod, place, map[string]string{source.ServiceAccountToken.Path: token}, nil, mode, err)
	}
	return errors.New("a source that the lab does not know")
}

// serviceToken is bound to the pod, as a kubelet's would be.
func (n *Node) serviceToken(pod *corev1.Pod, wanted *corev1.ServiceAccountTokenProjection) (string, error) {
	request := authenticationv1.TokenRequest{Spec: authenticationv1.TokenRequestSpec{
		ExpirationSeconds: wanted.ExpirationSeconds,
		BoundObjectRef: &authenticationv1.BoundObjectReference{
			Kind: "Pod", APIVersion: "v1", Name: pod.Name, UID: pod.UID},
	}}
	if wanted.Audience != "" {
		request.Spec.Audiences = []string{wanted.Audience}
	}
	path := fmt.Sprintf("/api/v1/namespaces/%s/serviceaccounts/%s/token", pod.Namespace, pod.Spec.ServiceAccountName)
	err := n.api.post(path, &request, &request)
	return request.Status.Token, err
}

func downward(pod *corev1.Pod, place string, items []corev1.DownwardAPIVolumeFile) error {
	for _, item := range items {
		if item.FieldRef == nil {
			return fmt.Errorf("%s: a source that the lab does not know", item.Path)
		}
		value, err := field(pod, item.FieldRef.FieldPath)
		if err := lay(pod, place, map[string]string{item.Path: value}, nil, nil, err); err != nil {
			return err
		}
	}
	return nil
}

// lay writes values as files, all of them or the items, for the pod's group to read.
func lay(pod *corev1.Pod, place string, values map[string]string, items []corev1.KeyToPath, mode *int32, err error) error {
	if err != nil {
		return err
	}
	if items != nil {
		chosen := map[string]string{}
		for _, item := range items {
			value, there := values[item.Key]
			if !there {
				return fmt.Errorf("there is no %s", item.Key)
			}
			chosen[item.Path] = value
		}
		values = chosen
	}
	permissions := os.FileMode(0o644)
	if mode != nil {
		permissions = os.FileMode(*mode)
	}
	for name, value := range values {
		path := filepath.Join(place, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(path, []byte(value), permissions); err != nil {
			return err
		}
		group := 0
		if security := pod.Spec.SecurityContext; security != nil && security.FSGroup != nil {
			group = int(*security.FSGroup)
		}
		if err := errors.Join(os.Chown(path, 0, group), os.Chmod(path, permissions)); err != nil {
			return err
		}
	}
	return nil
}

func (n *Node) secret(namespace, name string, optional bool) (map[string]string, error) {
	var found corev1.Secret
	err := n.api.get(fmt.Sprintf("/api/v1/namespaces/%s/secrets/%s", namespace, name), &found)
	values := map[string]string{}
	for key, value := range found.Data {
		values[key] = string(value)
	}
	return values, unless(optional, err)
}

func (n *Node) configMap(namespace, name string, optional bool) (map[string]string, error) {
	var found corev1.ConfigMap
	err := n.api.get(fmt.Sprintf("/api/v1/namespaces/%s/configmaps/%s", namespace, name), &found)
	values := found.Data
	for key, value := range found.BinaryData {
		values[key] = string(value)
	}
	return values, unless(optional, err)
}

func unless(optional bool, err error) error {
	if optional && errors.Is(err, errNotFound) {
		return nil
	}
	return err
}

// bindClaims gives each claim that waits a volume of its own, which the controllers then bind to it.
func (n *Node) bindClaims() error {
	var claims corev1.PersistentVolumeClaimList
	if err := n.api.get("/api/v1/persistentvolumeclaims", &claims); err != nil {
		return err
	}
	for _, claim := range claims.Items {
		if claim.Status.Phase != corev1.ClaimPending || claim.Spec.VolumeName != "" || n.bound[claim.UID] {
			continue
		}
		n.bound[claim.UID] = true
		volume := corev1.PersistentVolume{
			TypeMeta:   metav1.TypeMeta{APIVersion: "v1", Kind: "PersistentVolume"},
			ObjectMeta: metav1.ObjectMeta{Name: "lab-" + string(claim.UID)},
			Spec: corev1.PersistentVolumeSpec{
				AccessModes: claim.Spec.AccessModes, Capacity: claim.Spec.Resources.Requests,
				ClaimRef: &corev1.ObjectReference{APIVersion: "v1", Kind: "PersistentVolumeClaim",
					Namespace: claim.Namespace, Name: claim.Name, UID: claim.UID},
				PersistentVolumeSource: corev1.PersistentVolumeSource{
					HostPath: &corev1.HostPathVolumeSource{Path: n.claimFolder(claim.Namespace, claim.Name)}},
			},
		}
		if claim.Spec.StorageClassName != nil {
			volume.Spec.StorageClassName = *claim.Spec.StorageClassName
		}
		if err := n.api.post("/api/v1/persistentvolumes", &volume, nil); err != nil {
			return err
		}
	}
	return nil
}
