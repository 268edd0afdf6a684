{{- define "moe-serve.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 50 | trimSuffix "-" -}}
{{- end -}}

{{- define "moe-serve.fullname" -}}
{{- $name := include "moe-serve.name" . -}}
{{- if .Values.fullnameOverride -}}{{ .Values.fullnameOverride }}
{{- else if contains $name .Release.Name -}}{{ .Release.Name | trunc 50 | trimSuffix "-" }}
{{- else -}}{{ printf "%s-%s" .Release.Name $name | trunc 50 | trimSuffix "-" }}
{{- end -}}
{{- end -}}

{{- define "moe-serve.arm" -}}
{{- default .Release.Name .Values.arm -}}
{{- end -}}

{{- define "moe-serve.servedName" -}}
{{- default .Values.model.name .Values.model.servedName -}}
{{- end -}}

{{/* A model's name may hold slashes, a label may not. */}}
{{- define "moe-serve.modelLabel" -}}
{{- base (include "moe-serve.servedName" .) | trunc 63 -}}
{{- end -}}

{{/* What makes a pod this release's: never a version, since selectors cannot change. Takes [root, component]. */}}
{{- define "moe-serve.selector" -}}
app.kubernetes.io/name: {{ include "moe-serve.name" (first .) }}
app.kubernetes.io/instance: {{ (first .).Release.Name }}
app.kubernetes.io/component: {{ last . }}
{{- end -}}

{{/* Labels of objects, not of pods: a new chart alone must not start a pod anew. Takes [root, component]. */}}
{{- define "moe-serve.labels" -}}
{{ include "moe-serve.selector" . }}
app.kubernetes.io/part-of: moe-serve
app.kubernetes.io/managed-by: {{ (first .).Release.Service }}
app.kubernetes.io/version: {{ (first .).Chart.AppVersion | trunc 63 | quote }}
helm.sh/chart: {{ printf "%s-%s" (first .).Chart.Name (first .).Chart.Version | replace "+" "_" }}
{{- end -}}

{{- define "moe-serve.podLabels" -}}
{{ include "moe-serve.selector" . }}
app.kubernetes.io/part-of: moe-serve
{{- with (first .).Values.podLabels }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/* Takes [root, image]. */}}
{{- define "moe-serve.imageReference" -}}
{{- $root := first . -}}{{- $image := last . -}}
{{- $registry := default $image.registry $root.Values.global.imageRegistry -}}
{{- with $registry }}{{ . }}/{{ end }}{{ $image.repository }}
{{- if $image.digest }}@{{ $image.digest }}{{ else }}:{{ default $root.Chart.AppVersion $image.tag }}{{ end }}
{{- end -}}

{{- define "moe-serve.image" -}}{{ include "moe-serve.imageReference" (list . .Values.image) }}{{- end -}}
{{- define "moe-serve.opsImage" -}}{{ include "moe-serve.imageReference" (list . .Values.opsImage) }}{{- end -}}

{{- define "moe-serve.serviceAccount" -}}
{{- default (include "moe-serve.fullname" .) .Values.serviceAccount.name -}}
{{- end -}}

{{- define "moe-serve.modelClaim" -}}
{{- if eq .Values.model.source "job" }}{{ include "moe-serve.fullname" . }}-model{{ else }}{{ .Values.model.claim.name }}{{ end -}}
{{- end -}}
