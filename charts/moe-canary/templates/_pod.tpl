{{- define "moe-canary.podSecurity" -}}
runAsNonRoot: true
{{- range $key := list "runAsUser" "runAsGroup" "fsGroup" }}
{{- $value := get $.Values.security $key }}
{{- if not (kindIs "invalid" $value) }}
{{ $key }}: {{ int $value }}
{{- end }}
{{- end }}
fsGroupChangePolicy: OnRootMismatch
seccompProfile:
  type: RuntimeDefault
{{- end -}}

{{- define "moe-canary.containerSecurity" -}}
allowPrivilegeEscalation: false
privileged: false
readOnlyRootFilesystem: true
capabilities:
  drop: [ALL]
{{- end -}}

{{- define "moe-canary.pullSecrets" -}}
{{- with .Values.global.imagePullSecrets }}
imagePullSecrets:
{{- range . }}
  - name: {{ if kindIs "map" . }}{{ .name }}{{ else }}{{ . }}{{ end }}
{{- end }}
{{- end }}
{{- end -}}

{{- define "moe-canary.args" -}}
- canary
{{- if include "moe-canary.isController" . }}
- run
- --rollout-file=/etc/moe-serve/rules/plan.yaml
{{- if not .Values.controller.shadow }}
- --active
{{- end }}
{{- else }}
- serve
{{- end }}
- --policy-file=/etc/moe-serve/rules/policy.yaml
- --listen=0.0.0.0:{{ include "moe-canary.port" . }}
{{- if include "moe-canary.isController" . }}
- --every={{ .Values.controller.lookSeconds }}
- --judge-every={{ .Values.comparison.everySeconds }}
{{- else }}
- --every={{ .Values.comparison.everySeconds }}
{{- end }}
{{- with .Values.source }}
{{- with .prometheus.url }}
- --prometheus={{ . }}
{{- end }}
{{- range $arm := list "stable" "canary" }}
{{- range default list (get $.Values.source.exporters $arm) }}
- --exporter={{ $arm }}={{ . }}
{{- end }}
{{- end }}
{{- with .prometheus.selector }}
- {{ printf "--selector=%s" . | quote }}
{{- end }}
- --arm-label={{ .armLabel }}
{{- /* Where the plan has a baseline, the canary is compared with that. */}}
{{- if not (and (include "moe-canary.isController" $) ((($.Values.controller).plan).arms).baseline (eq .stable "stable")) }}
- --stable-label={{ .stable }}
{{- end }}
- --canary-label={{ .canary }}
{{- with .prometheus }}
{{- if .tokenSecret }}
- --bearer-token-file=/etc/moe-serve/token/{{ .tokenKey }}
{{- end }}
{{- if .basicAuthSecret }}
- --basic-auth-file=/etc/moe-serve/basic-auth/{{ .basicAuthKey }}
{{- end }}
{{- if .caSecret }}
- --ca-file=/etc/moe-serve/ca/{{ .caKey }}
{{- end }}
{{- end }}
{{- end }}
{{- with .Values.comparison }}
{{- if .quality.existingConfigMap }}
- --quality=/etc/moe-serve/quality/{{ .quality.key }}
{{- end }}
{{- with .start }}
- --start={{ . }}
{{- end }}
{{- end }}
{{- with .Values.controller }}
{{- if .slackSecret }}
- --slack-file=/etc/moe-serve/slack/{{ .slackKey }}
{{- end }}
{{- if .webhookSecret }}
- --webhook-file=/etc/moe-serve/webhook/{{ .webhookKey }}
{{- end }}
{{- end }}
{{- if ne .Values.audit.type "off" }}
- --audit=/var/lib/moe-serve/audit.jsonl
{{- end }}
{{- range .Values.extraArgs }}
- {{ . | quote }}
{{- end }}
{{- end -}}

{{/* Existing secrets that are mounted, by the name of their folder. */}}
{{- define "moe-canary.secrets" -}}
{{- $prometheus := .Values.source.prometheus -}}{{- $controller := .Values.controller -}}
{{- range $name, $secret := dict "token" $prometheus.tokenSecret "basic-auth" $prometheus.basicAuthSecret "ca" $prometheus.caSecret "slack" $controller.slackSecret "webhook" $controller.webhookSecret }}
{{- if $secret }}
{{ $name }}: {{ $secret }}
{{- end }}
{{- end }}
{{- end -}}

{{- define "moe-canary.volumes" -}}
- name: rules
  configMap:
    name: {{ include "moe-canary.fullname" . }}
- name: tmp
  emptyDir:
    sizeLimit: 64Mi
{{- range $name, $secret := include "moe-canary.secrets" . | fromYaml }}
- name: {{ $name }}
  secret:
    secretName: {{ $secret }}
    defaultMode: 0440
{{- end }}
{{- with .Values.comparison.quality.existingConfigMap }}
- name: quality
  configMap:
    name: {{ . }}
    # The answers may be compared later than the judge starts.
    optional: true
{{- end }}
{{- if eq .Values.audit.type "claim" }}
- name: audit
  persistentVolumeClaim:
    claimName: {{ .Values.audit.claim }}
{{- else if eq .Values.audit.type "emptyDir" }}
- name: audit
  emptyDir:
    sizeLimit: {{ .Values.audit.size }}
{{- end }}
{{- end -}}

{{/* The kubelet counts emptyDirs against the limits of containers: 256 MiB of its own, 64 of /tmp, and the log. */}}
{{- define "moe-canary.disk" -}}
{{- $log := 0 -}}
{{- if eq .Values.audit.type "emptyDir" -}}
{{- $number := regexFind "^[0-9]+" .Values.audit.size | int -}}
{{- $log = ternary (mul 1024 $number) $number (hasSuffix "Gi" .Values.audit.size) -}}
{{- end -}}
{{- add 256 64 $log }}Mi
{{- end -}}

{{- define "moe-canary.mounts" -}}
- name: rules
  mountPath: /etc/moe-serve/rules
  readOnly: true
- name: tmp
  mountPath: /tmp
{{- range $name, $_ := include "moe-canary.secrets" . | fromYaml }}
- name: {{ $name }}
  mountPath: /etc/moe-serve/{{ $name }}
  readOnly: true
{{- end }}
{{- if .Values.comparison.quality.existingConfigMap }}
- name: quality
  mountPath: /etc/moe-serve/quality
  readOnly: true
{{- end }}
{{- if ne .Values.audit.type "off" }}
- name: audit
  mountPath: /var/lib/moe-serve
{{- end }}
{{- end -}}
