{{- define "moe-canary.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 50 | trimSuffix "-" -}}
{{- end -}}

{{/* At most so many characters: a longer text is cut, and a digest of the whole keeps it apart from others that begin
alike. Takes [text, characters]. */}}
{{- define "moe-canary.shortened" -}}
{{- $text := first . -}}{{- $most := last . -}}
{{- if gt (len $text) $most -}}
{{- printf "%s-%s" ($text | trunc (int (sub $most 9)) | trimSuffix "-") (sha256sum $text | trunc 8) -}}
{{- else }}{{ $text }}
{{- end -}}
{{- end -}}

{{/* 48 characters: the longest name made from it has 15 more, and 63 is the most that every kind of object takes. */}}
{{- define "moe-canary.fullname" -}}
{{- $name := include "moe-canary.name" . -}}
{{- if .Values.fullnameOverride -}}{{ .Values.fullnameOverride }}
{{- else if contains $name .Release.Name -}}{{ include "moe-canary.shortened" (list .Release.Name 48) }}
{{- else -}}{{ include "moe-canary.shortened" (list (printf "%s-%s" .Release.Name $name) 48) }}
{{- end -}}
{{- end -}}

{{/* What makes a pod this release's: never a version, since selectors cannot change. Takes [root, component]. */}}
{{- define "moe-canary.selector" -}}
app.kubernetes.io/name: {{ include "moe-canary.name" (first .) }}
app.kubernetes.io/instance: {{ (first .).Release.Name }}
app.kubernetes.io/component: {{ last . }}
{{- end -}}

{{/* Takes [root, component]. */}}
{{- define "moe-canary.labels" -}}
{{ include "moe-canary.selector" . }}
app.kubernetes.io/part-of: moe-serve
app.kubernetes.io/managed-by: {{ (first .).Release.Service }}
app.kubernetes.io/version: {{ (first .).Chart.AppVersion | quote }}
helm.sh/chart: {{ printf "%s-%s" (first .).Chart.Name (first .).Chart.Version | replace "+" "_" }}
{{- end -}}

{{- define "moe-canary.image" -}}
{{- with default .Values.image.registry .Values.global.imageRegistry | trimSuffix "/" }}{{ . }}/{{ end }}{{ .Values.image.repository }}
{{- if .Values.image.digest }}@{{ .Values.image.digest }}{{ else }}:{{ default .Chart.AppVersion .Values.image.tag }}{{ end }}
{{- end -}}

{{- define "moe-canary.serviceAccount" -}}
{{- default (ternary (include "moe-canary.fullname" .) "default" .Values.serviceAccount.create) .Values.serviceAccount.name -}}
{{- end -}}

{{- define "moe-canary.isController" -}}
{{- if eq .Values.mode "controller" }}yes{{ end -}}
{{- end -}}

{{/* As the controller names them: its state and its lease by the plan, its route by the plan unless it says so. */}}
{{- define "moe-canary.stateName" -}}
{{- printf "%s-rollout" .Values.controller.plan.name -}}
{{- end -}}

{{- define "moe-canary.routeName" -}}
{{- default .Values.controller.plan.name (default dict .Values.controller.plan.route).name -}}
{{- end -}}

{{- define "moe-canary.port" -}}
{{- ternary 9501 9500 (eq .Values.mode "controller") -}}
{{- end -}}
