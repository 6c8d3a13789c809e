{{- define "meshgate.name" -}}
{{- if contains "meshgate" .Release.Name }}{{ .Release.Name | trunc 40 | trimSuffix "-" }}{{ else }}{{ printf "%s-meshgate" (.Release.Name | trunc 31 | trimSuffix "-") }}{{ end }}
{{- end }}

{{- define "meshgate.labels" -}}
app.kubernetes.io/name: meshgate
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version }}
{{- end }}

{{- /* Labels that a selector may have: they never change. */ -}}
{{- define "meshgate.select" -}}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: {{ .component }}
{{- end }}

{{- define "meshgate.gateway.select" -}}
{{- if .Values.gateway.create }}{{ include "meshgate.select" (dict "Release" .Release "component" "private-gateway") }}{{ else }}{{ toYaml .Values.gateway.labels }}{{ end }}
{{- end }}

{{- define "meshgate.companion.select" -}}
{{ include "meshgate.select" (dict "Release" .Release "component" "companion") }}
{{- end }}

{{- /* The pods that run the filter. */ -}}
{{- define "meshgate.proxies.select" -}}
{{- if eq .Values.attach.to "gateway" }}{{ include "meshgate.gateway.select" . }}{{ else }}{{ toYaml .Values.attach.workload.labels }}{{ end }}
{{- end }}

{{- define "meshgate.proxies.account" -}}
{{- if ne .Values.attach.to "gateway" }}{{ .Values.attach.workload.serviceAccount }}{{ else if .Values.gateway.create }}{{ include "meshgate.name" . }}-gateway{{ else }}{{ .Values.gateway.serviceAccount }}{{ end }}
{{- end }}

{{- define "meshgate.local" -}}
{{ .Release.Namespace }}.svc.{{ .Values.mesh.clusterDomain }}
{{- end }}

{{- /* What a pod that runs the filter asks of Istio's bootstrap. */ -}}
{{- define "meshgate.proxyConfig" -}}
terminationDrainDuration: {{ .Values.gateway.drain }}
extraStatTags: [command, code, le, reason, result, kind, limit]
proxyStatsMatcher:
  inclusionPrefixes: [listener, tcp, cluster.outbound, extension_config_discovery]
{{- end }}

{{- /* Truth is "yes", everything else empty. */ -}}
{{- define "meshgate.logins" -}}
{{- if has .Values.config.session.mode (list "ticket" "noise") }}yes{{ end }}
{{- end }}

{{- define "meshgate.routed" -}}
{{- if and (eq .Values.attach.to "gateway") (eq .Values.upstream.path "routed") }}yes{{ end }}
{{- end }}

{{- /* The host that leads to the gateway's own loopback listener. */ -}}
{{- define "meshgate.loopback" -}}
{{ include "meshgate.name" . }}-loopback.{{ .Release.Namespace }}.internal
{{- end }}

{{- /* Whether the gateway has that listener: for routes, or to tell a refused client why. */ -}}
{{- define "meshgate.hasLoopback" -}}
{{- if and (eq .Values.attach.to "gateway") (or (include "meshgate.routed" .) (include "meshgate.logins" .)) }}yes{{ end }}
{{- end }}

{{- /* The filter's whole configuration. JSON, because YAML would write large numbers as 1e+06. */ -}}
{{- define "meshgate.config" -}}
{{- $config := deepCopy .Values.config }}
{{- $commands := list }}
{{- range .Values.commands }}{{ $commands = append $commands (omit . "route") }}{{ end }}
{{- $_ := set $config "commands" $commands }}
{{- $service := printf "outbound|%d||%s" (int .Values.upstream.port) .Values.upstream.host }}
{{- $loopback := printf "outbound|%d||%s" (int .Values.gateway.loopbackPort) (include "meshgate.loopback" .) }}
{{- $cluster := $service }}
{{- if eq .Values.attach.to "workload" }}{{ $cluster = printf "%s-local" (include "meshgate.name" .) }}{{ else if include "meshgate.routed" . }}{{ $cluster = $loopback }}{{ end }}
{{- $upstream := dict "authority" (printf "%s:%d" .Values.upstream.host (int .Values.upstream.port)) "cluster" $cluster }}
{{- if include "meshgate.logins" . }}
{{- $_ := set $upstream "connect" "after_login" }}
{{- if include "meshgate.hasLoopback" . }}{{ $_ := set $upstream "refusal_cluster" $loopback }}{{ end }}
{{- $_ := set $config "companion" (dict "cluster" (printf "outbound|9443||%s-companion.%s" (include "meshgate.name" .) (include "meshgate.local" .))) }}
{{- end }}
{{- $_ := set $config "upstream" $upstream }}
{{- toPrettyJson $config }}
{{- end }}
