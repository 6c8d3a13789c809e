package istio

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"regexp"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/yaml"

	"meshgate/tests/istio/manifest"
)

const (
	alertRules = chartFolder + "/alerts/meshgate.yaml"
	dashboard  = chartFolder + "/dashboards/meshgate.json"
)

func TestTheDashboardIsWhatItsSourceMakes(t *testing.T) {
	output, err := exec.Command("python3", resources+"/dashboards/generate.py", "--check").CombinedOutput()
	if err != nil {
		t.Errorf("%v\n%s", err, output)
	}
}

func TestPanelsDoNotCoverOneAnother(t *testing.T) {
	text, err := os.ReadFile(dashboard)
	if err != nil {
		t.Fatal(err)
	}
	var parsed struct {
		Panels []struct {
			Title   string
			GridPos struct{ X, Y, W, H int }
		}
	}
	if err := json.Unmarshal(text, &parsed); err != nil {
		t.Fatal(err)
	}
	taken := map[[2]int]string{}
	for _, panel := range parsed.Panels {
		place := panel.GridPos
		if place.X+place.W > 24 || place.W == 0 || place.H == 0 {
			t.Errorf("%s: %v", panel.Title, place)
		}
		for x := place.X; x < place.X+place.W; x++ {
			for y := place.Y; y < place.Y+place.H; y++ {
				if other, found := taken[[2]int{x, y}]; found {
					t.Fatalf("%s covers %s", panel.Title, other)
				}
				taken[[2]int{x, y}] = panel.Title
			}
		}
	}
	if len(parsed.Panels) < 30 {
		t.Errorf("%d panels", len(parsed.Panels))
	}
}

// promtool is beside the Prometheus that scripts/prometheus finds.
func promtool(t *testing.T) string {
	t.Helper()
	program := filepath.Join(os.Getenv("MESHGATE_PROMETHEUS"), "promtool")
	if _, err := os.Stat(program); os.Getenv("MESHGATE_PROMETHEUS") == "" || err != nil {
		if os.Getenv("CI") != "" {
			t.Fatal("no promtool: scripts/prometheus, and set MESHGATE_PROMETHEUS")
		}
		t.Skip("no promtool (scripts/prometheus says how to get one)")
	}
	return program
}

func TestTheAlertRulesAreRules(t *testing.T) {
	output, err := exec.Command(promtool(t), "check", "rules", alertRules).CombinedOutput()
	if err != nil {
		t.Errorf("%v\n%s", err, output)
	}
}

func TestAlertsFireWhenTheyShouldAndNotElse(t *testing.T) {
	output, err := exec.Command(promtool(t), "test", "rules", "alerts.test.yaml").CombinedOutput()
	if err != nil {
		t.Errorf("%v\n%s", err, output)
	}
}

// alerts are the names in the rules, with the runbook's anchor of each.
func alerts(t *testing.T) map[string]string {
	t.Helper()
	text, err := os.ReadFile(alertRules)
	if err != nil {
		t.Fatal(err)
	}
	var parsed struct {
		Groups []struct {
			Rules []struct {
				Alert       string
				Labels      map[string]string
				Annotations map[string]string
			}
		}
	}
	if err := yaml.Unmarshal(text, &parsed); err != nil {
		t.Fatal(err)
	}
	found := map[string]string{}
	for _, group := range parsed.Groups {
		for _, rule := range group.Rules {
			if rule.Labels["severity"] == "" || rule.Annotations["summary"] == "" {
				t.Errorf("%s says no severity or no summary", rule.Alert)
			}
			found[rule.Alert] = rule.Annotations["runbook_url"]
		}
	}
	if len(found) < 10 {
		t.Fatalf("%d alerts", len(found))
	}
	return found
}

func TestEveryAlertHasItsRunbookAndItsTest(t *testing.T) {
	runbook, err := os.ReadFile(resources + "/RUNBOOK.md")
	if err != nil {
		t.Fatal(err)
	}
	tested, err := os.ReadFile("alerts.test.yaml")
	if err != nil {
		t.Fatal(err)
	}
	sections := map[string]bool{}
	for _, section := range regexp.MustCompile(`(?ms)^## (\w+)\n(.*?)(?:\n\n|\z)`).FindAllStringSubmatch(string(runbook), -1) {
		sections[section[1]] = true
		for _, part := range []string{"**Means**", "**Do**"} {
			// "Look at and do as for …" says both in one.
			if !strings.Contains(section[2], part) && !strings.Contains(section[2], "**do**") {
				t.Errorf("RUNBOOK.md: %s does not say %s", section[1], part)
			}
		}
	}
	for name, url := range alerts(t) {
		if !sections[name] {
			t.Errorf("RUNBOOK.md has no section %s", name)
		}
		if url != "RUNBOOK.md#"+strings.ToLower(name) {
			t.Errorf("%s leads to %q", name, url)
		}
		delete(sections, name)
		if !strings.Contains(string(tested), "alertname: "+name+"\n        exp_alerts:") {
			t.Errorf("alerts.test.yaml does not let %s fire", name)
		}
	}
	for name := range sections {
		t.Errorf("RUNBOOK.md tells of %s, which is no alert", name)
	}
}

func observed(t *testing.T, kind string, change func(values map[string]any)) []manifest.Object {
	t.Helper()
	values := examples(t)["observed"].AsMap()
	change(values)
	var found []manifest.Object
	for _, object := range mustRender(t, values) {
		if object.GetKind() == kind {
			found = append(found, object)
		}
	}
	return found
}

func unchanged(map[string]any) {}

func TestTheChartCarriesTheAlertsAndTheDashboard(t *testing.T) {
	rules := observed(t, "PrometheusRule", unchanged)
	if len(rules) != 1 {
		t.Fatalf("%d PrometheusRules", len(rules))
	}
	text, _ := rules[0].MarshalJSON()
	for name := range alerts(t) {
		if !strings.Contains(string(text), `"alert":"`+name+`"`) {
			t.Errorf("%s is not in the PrometheusRule", name)
		}
	}
	if strings.Contains(string(text), `"RUNBOOK.md#`) ||
		!strings.Contains(string(text), `"https://runbooks.example/RUNBOOK.md#meshgate`) {
		t.Error("runbook_url does not lead to observe.alerts.runbookUrl")
	}
	if !strings.Contains(string(text), "{{ $labels.pod }}") {
		t.Error("Helm ate Prometheus' own templates")
	}
	for _, config := range observed(t, "ConfigMap", unchanged) {
		content, found, _ := unstructured.NestedString(config.Object, "data", "meshgate.json")
		if !found {
			continue
		}
		original, err := os.ReadFile(dashboard)
		if err != nil {
			t.Fatal(err)
		}
		var ours, theirs any
		if json.Unmarshal([]byte(content), &ours) != nil || json.Unmarshal(original, &theirs) != nil ||
			!reflect.DeepEqual(ours, theirs) {
			t.Error("the ConfigMap does not hold the dashboard")
		}
		if config.GetLabels()["grafana_dashboard"] != "1" {
			t.Errorf("%v", config.GetLabels())
		}
		return
	}
	t.Error("no ConfigMap holds the dashboard")
}

func TestWhatIsObservedCanBeSwitchedOffPieceByPiece(t *testing.T) {
	for kind, key := range map[string]string{"PrometheusRule": "alerts", "PodMonitor": "monitors",
		"ConfigMap": "dashboards", "HorizontalPodAutoscaler": "autoscaling"} {
		t.Run(kind, func(t *testing.T) {
			with := len(observed(t, kind, unchanged))
			without := len(observed(t, kind, func(values map[string]any) {
				values["observe"].(map[string]any)[key].(map[string]any)["create"] = false
			}))
			if with <= without {
				t.Errorf("%d with observe.%s.create, %d without", with, key, without)
			}
		})
	}
}

// Istio's bootstrap takes only those labels apart, and keeps only those stats, that the pod asks for.
func TestTheGatewaysPodsAskForLabelsAndStats(t *testing.T) {
	bootstrap, err := os.ReadFile(resources + "/../envoy-config/direct.yaml")
	if err != nil {
		t.Fatal(err)
	}
	expected := map[string]bool{}
	for _, match := range regexp.MustCompile(`tag_name: (\w+)`).FindAllStringSubmatch(string(bootstrap), -1) {
		expected[match[1]] = true
	}
	pods := scenarios(t)[base]
	for _, values := range examples(t) {
		pods = append(pods, mustRender(t, values)...)
	}
	checked := 0
	for _, object := range pods {
		annotations, _, _ := unstructured.NestedStringMap(object.Object, "spec", "template", "metadata", "annotations")
		if object.GetKind() != "Deployment" || annotations["inject.istio.io/templates"] != "gateway" {
			continue
		}
		checked++
		var config struct {
			ExtraStatTags     []string
			ProxyStatsMatcher struct{ InclusionPrefixes []string }
		}
		if err := yaml.Unmarshal([]byte(annotations["proxy.istio.io/config"]), &config); err != nil {
			t.Fatal(err)
		}
		found := map[string]bool{}
		for _, tag := range config.ExtraStatTags {
			found[tag] = true
		}
		if !reflect.DeepEqual(found, expected) {
			t.Errorf("%s asks for the labels %v, the filter has %v", object.Title(), found, expected)
		}
		if len(config.ProxyStatsMatcher.InclusionPrefixes) == 0 {
			t.Errorf("%s keeps no stats of its listeners", object.Title())
		}
	}
	if checked < 2 {
		t.Errorf("%d gateways", checked)
	}
}
