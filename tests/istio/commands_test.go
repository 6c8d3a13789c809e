package istio

import (
	"bufio"
	"bytes"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"meshgate/tests/istio/manifest"
)

// What a pod would run is run here: the rendered arguments, with the mounted files elsewhere.

func TestTheCompanionStartsWithTheArgumentsOfItsPod(t *testing.T) {
	pods := map[string][]manifest.Object{base: scenarios(t)[base]}
	for name, values := range examples(t) {
		pods["chart "+name] = mustRender(t, values)
	}
	started := 0
	for name, objects := range pods {
		for _, object := range objects {
			if object.GetKind() != "StatefulSet" {
				continue
			}
			started++
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				startCompanion(t, arguments(t, object, "spec", "template", "spec", "containers"))
			})
		}
	}
	if started < 2 {
		t.Errorf("%d companions", started)
	}
}

func startCompanion(t *testing.T, arguments []string) {
	folder := t.TempDir()
	for index, argument := range arguments {
		name, value, _ := strings.Cut(argument, "=")
		switch name {
		case "--listen", "--metrics-listen":
			value = "127.0.0.1:0"
		case "--set":
			value = elsewhere(t, folder, value)
		case "--store":
			value = filepath.Join(folder, filepath.Base(value))
		case "--noise-key", "--ticket-key", "--jwt-key":
			value = key(t, folder, name, filepath.Base(value))
		default:
			continue
		}
		arguments[index] = name + "=" + value
	}
	command := exec.Command(meshgate(t), arguments...)
	output, err := command.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	command.Stderr = command.Stdout
	if err := command.Start(); err != nil {
		t.Fatal(err)
	}
	late := time.AfterFunc(20*time.Second, func() { _ = command.Process.Kill() })
	defer late.Stop()
	var said []string
	listens := false
	for lines := bufio.NewScanner(output); lines.Scan(); {
		said = append(said, lines.Text())
		if !listens && strings.Contains(lines.Text(), "listening") {
			listens = true
			_ = command.Process.Signal(syscall.SIGTERM)
		}
	}
	if err := command.Wait(); err != nil || !listens {
		t.Errorf("%q: %v\n%s", arguments, err, strings.Join(said, "\n"))
	}
}

// elsewhere moves what a setting names to this machine. Nobody is the Redis server: the companion starts
// all the same, and tells logins to try again.
func elsewhere(t *testing.T, folder, setting string) string {
	switch key, _, _ := strings.Cut(setting, "="); key {
	case "app.listen":
		return key + "=127.0.0.1:0"
	case "store.redis.host":
		return key + "=127.0.0.1"
	case "store.redis.port":
		return key + "=1"
	case "store.redis.password_file":
		file := filepath.Join(folder, "password")
		if err := os.WriteFile(file, []byte("secret"), 0o600); err != nil {
			t.Fatal(err)
		}
		return key + "=" + file
	}
	return setting
}

// key makes the key file that an argument names.
func key(t *testing.T, folder, argument, name string) string {
	t.Helper()
	file := filepath.Join(folder, name)
	if argument == "--jwt-key" {
		// RFC 8037, appendix A.2.
		jwks := `{"keys":[{"kty":"OKP","crv":"Ed25519","alg":"EdDSA","kid":"1",
			"x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}]}`
		if err := os.WriteFile(file, []byte(jwks), 0o600); err != nil {
			t.Fatal(err)
		}
		return file
	}
	kind := map[string]string{"--noise-key": "noise", "--ticket-key": "ticket-ed25519"}[argument]
	if output, err := exec.Command(meshgate(t), "keygen", kind, "--out", file).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, output)
	}
	return file
}

// Nobody listens here, so the call fails; but only after its arguments and files were understood.
func TestTheCallOfHelmTestIsUnderstood(t *testing.T) {
	var pod, config manifest.Object
	for _, object := range mustRender(t, examples(t)["direct"]) {
		switch {
		case object.GetKind() == "Pod":
			pod = object
		case object.GetKind() == "ConfigMap":
			config = object
		}
	}
	folder := t.TempDir()
	document := config.Object["data"].(map[string]any)["config.json"].(string)
	public, err := exec.Command(meshgate(t), "keygen", "noise", "--out", filepath.Join(folder, "n")).Output()
	if err != nil {
		t.Fatal(err)
	}
	files := map[string]string{"config.json": document, "noise-public.json": string(public), "ticket": "t"}
	for name, content := range files {
		if err := os.WriteFile(filepath.Join(folder, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	var given []string
	for _, argument := range arguments(t, pod, "spec", "containers") {
		name, value, hasValue := strings.Cut(argument, "=")
		switch {
		case name == "--connect":
			value = "127.0.0.1:1"
		case strings.HasPrefix(value, "@/"):
			value = "@" + filepath.Join(folder, filepath.Base(value))
		case strings.HasPrefix(value, "/"):
			value = filepath.Join(folder, filepath.Base(value))
		}
		if hasValue {
			name += "=" + value
		}
		given = append(given, name)
	}
	output, err := exec.Command(meshgate(t), given...).CombinedOutput()
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.ExitCode() != 1 || !bytes.Contains(output, []byte("127.0.0.1:1")) {
		t.Errorf("%q: %v\n%s", given, err, output)
	}
}

// arguments are those of the first container.
func arguments(t *testing.T, object manifest.Object, path ...string) []string {
	t.Helper()
	var all []string
	for _, argument := range list(t, object.Object, path...)[0]["args"].([]any) {
		all = append(all, argument.(string))
	}
	return all
}
