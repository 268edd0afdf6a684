{{- define "moe-serve.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 50 | trimSuffix "-" -}}
{{- end -}}

{{/* At most so many characters: a longer text is cut, and a digest of the whole keeps it apart from others that begin
alike. Takes [text, characters]. */}}
{{- define "moe-serve.shortened" -}}
{{- $text := first . -}}{{- $most := last . -}}
{{- if gt (len $text) $most -}}
{{- printf "%s-%s" ($text | trunc (int (sub $most 9)) | trimSuffix "-") (sha256sum $text | trunc 8) -}}
{{- else }}{{ $text }}
{{- end -}}
{{- end -}}

{{/* 48 characters: the longest name made from it has 15 more, and 63 is the most that every kind of object takes. */}}
{{- define "moe-serve.fullname" -}}
{{- $name := include "moe-serve.name" . -}}
{{- if .Values.fullnameOverride -}}{{ .Values.fullnameOverride }}
{{- else if contains $name .Release.Name -}}{{ include "moe-serve.shortened" (list .Release.Name 48) }}
{{- else -}}{{ include "moe-serve.shortened" (list (printf "%s-%s" .Release.Name $name) 48) }}
{{- end -}}
{{- end -}}

{{- define "moe-serve.arm" -}}
{{- if .Values.arm }}{{ .Values.arm }}
{{- else if eq .Chart.Name "moe-serve" }}{{ .Release.Name }}
{{- /* A parent chart's alias: two arms of one release must differ. */}}
{{- else }}{{ include "moe-serve.shortened" (list (printf "%s-%s" .Release.Name .Chart.Name) 63) }}
{{- end -}}
{{- end -}}

{{- define "moe-serve.servedName" -}}
{{- default .Values.model.name .Values.model.servedName -}}
{{- end -}}

{{/* A model's name may hold slashes, a label may not. */}}
{{- define "moe-serve.modelLabel" -}}
{{- regexReplaceAll "[^A-Za-z0-9]+$" (base (include "moe-serve.servedName" .) | trunc 63) "" -}}
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
{{- with (first .).Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/* The line of an object's annotations, or nothing. Takes [root, the object's own as a dict]. */}}
{{- define "moe-serve.annotations" -}}
{{- with merge (deepCopy (last .)) (first .).Values.commonAnnotations }}
annotations:
  {{- toYaml . | nindent 2 }}
{{- end }}
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
{{- $registry := default $image.registry $root.Values.global.imageRegistry | trimSuffix "/" -}}
{{- with $registry }}{{ . }}/{{ end }}{{ $image.repository }}
{{- if $image.digest }}@{{ $image.digest }}{{ else }}:{{ default $root.Chart.AppVersion $image.tag }}{{ end }}
{{- end -}}

{{- define "moe-serve.image" -}}{{ include "moe-serve.imageReference" (list . .Values.image) }}{{- end -}}
{{/* The small image; a stock server needs none of ours. */}}
{{- define "moe-serve.opsImage" -}}
{{ include "moe-serve.imageReference" (list . (ternary .Values.image .Values.opsImage (include "moe-serve.isStock" . | eq "yes"))) }}
{{- end -}}
{{- define "moe-serve.opsPullPolicy" -}}
{{ ternary .Values.image.pullPolicy .Values.opsImage.pullPolicy (include "moe-serve.isStock" . | eq "yes") }}
{{- end -}}

{{/* Whether nothing in the pods comes from this project: vLLM's own image then runs as it is. */}}
{{- define "moe-serve.isStock" -}}
{{- if and (eq .Values.padding.policy "off") (not .Values.monitoring.exporter) (not .Values.preflight.enabled) }}yes{{ end -}}
{{- end -}}

{{- define "moe-serve.serviceAccount" -}}
{{- default (ternary (include "moe-serve.fullname" .) "default" .Values.serviceAccount.create) .Values.serviceAccount.name -}}
{{- end -}}

{{- define "moe-serve.modelClaim" -}}
{{- if eq .Values.model.source "job" }}{{ include "moe-serve.fullname" . }}-model{{ else }}{{ .Values.model.claim.name }}{{ end -}}
{{- end -}}
