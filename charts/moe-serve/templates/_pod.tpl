{{- define "moe-serve.podSecurity" -}}
runAsNonRoot: true
{{- range $key := list "runAsUser" "runAsGroup" "fsGroup" }}
{{- $value := index $.Values.security $key }}
{{- if not (kindIs "invalid" $value) }}
{{ $key }}: {{ int $value }}
{{- end }}
{{- end }}
fsGroupChangePolicy: OnRootMismatch
{{- with .Values.gpu.renderGroups }}
supplementalGroups:
{{- range . }}
  - {{ int . }}
{{- end }}
{{- end }}
seccompProfile:
  type: {{ .Values.security.seccomp }}
{{- end -}}

{{/* Of pods that write nothing and need no device: no group of root's. */}}
{{- define "moe-serve.plainPodSecurity" -}}
runAsNonRoot: true
{{- if not (kindIs "invalid" .Values.security.runAsUser) }}
runAsUser: {{ int .Values.security.runAsUser }}
runAsGroup: {{ int .Values.security.runAsUser }}
{{- end }}
seccompProfile:
  type: RuntimeDefault
{{- end -}}

{{- define "moe-serve.hostUsers" -}}
{{- if not (kindIs "invalid" .Values.security.hostUsers) }}
hostUsers: {{ .Values.security.hostUsers }}
{{- end }}
{{- end -}}

{{/* A term of pod affinity: where the other pods of this release are, the Job's too. */}}
{{- define "moe-serve.sameNode" -}}
- topologyKey: kubernetes.io/hostname
  labelSelector:
    matchLabels:
      app.kubernetes.io/name: {{ include "moe-serve.name" . }}
      app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "moe-serve.containerSecurity" -}}
allowPrivilegeEscalation: false
privileged: false
readOnlyRootFilesystem: {{ .Values.security.readOnlyRootFilesystem }}
capabilities:
  drop: [ALL]
  {{- with .Values.security.addCapabilities }}
  add: {{ toJson . }}
  {{- end }}
{{- end -}}

{{/* For containers that need nothing: tests, exporter, the model's Job. */}}
{{- define "moe-serve.plainSecurity" -}}
allowPrivilegeEscalation: false
privileged: false
readOnlyRootFilesystem: true
capabilities:
  drop: [ALL]
{{- end -}}

{{- define "moe-serve.pullSecrets" -}}
{{- with .Values.global.imagePullSecrets }}
imagePullSecrets:
{{- range . }}
  - name: {{ if kindIs "map" . }}{{ .name }}{{ else }}{{ . }}{{ end }}
{{- end }}
{{- end }}
{{- end -}}

{{/* A card and its virtual function, as AMD's GPU operator lists them (ROCm/gpu-operator, internal/utils.go). */}}
{{- define "moe-serve.deviceIds" -}}
{{- get (dict "MI355X" (list "75a3" "75b3") "MI350X" (list "75a0" "75b0") "MI325X" (list "74a5" "74b9") "MI300X" (list "74a1" "74b5")) .Values.gpu.product | toJson -}}
{{- end -}}

{{/* Terms are alternatives: nodes that say how they are partitioned, and nodes that do not. */}}
{{- define "moe-serve.nodeAffinity" -}}
{{- if and .Values.gpu.nodeAffinity (gt (int .Values.gpu.count) 0) }}
nodeAffinity:
  requiredDuringSchedulingIgnoredDuringExecution:
    nodeSelectorTerms:
      {{- range $partition := list (dict "operator" "In" "values" .Values.gpu.partitions) (dict "operator" "DoesNotExist") }}
      - matchExpressions:
          - key: amd.com/gpu.device-id
            operator: In
            values: {{ include "moe-serve.deviceIds" $ }}
          - {{ merge (dict "key" "amd.com/compute-memory-partition") $partition | toJson }}
          {{- range $.Values.gpu.nodeExpressions }}
          - {{ toJson . }}
          {{- end }}
      {{- end }}
{{- end }}
{{- end -}}

{{- define "moe-serve.podAffinity" -}}
{{- $oneNode := and (eq .Values.model.source "job") (eq .Values.model.job.accessMode "ReadWriteOnce") }}
{{- if or $oneNode (eq .Values.gpu.placement "pack") .Values.gpu.colocateWithArm }}
podAffinity:
  {{- if $oneNode }}
  requiredDuringSchedulingIgnoredDuringExecution:
    {{- include "moe-serve.sameNode" . | nindent 4 }}
  {{- end }}
  {{- if or (eq .Values.gpu.placement "pack") .Values.gpu.colocateWithArm }}
  preferredDuringSchedulingIgnoredDuringExecution:
    {{- with .Values.gpu.colocateWithArm }}
    - weight: 100
      podAffinityTerm:
        topologyKey: kubernetes.io/hostname
        labelSelector:
          matchLabels:
            moe-serve.io/arm: {{ . | quote }}
    {{- end }}
    {{- if eq .Values.gpu.placement "pack" }}
    - weight: 50
      podAffinityTerm:
        topologyKey: kubernetes.io/hostname
        labelSelector:
          matchLabels:
            app.kubernetes.io/name: {{ include "moe-serve.name" . }}
            app.kubernetes.io/component: server
    {{- end }}
  {{- end }}
{{- end }}
{{- end -}}

{{/* The chart's terms and the user's, kind by kind. Two required node affinities cannot both be given: refused. */}}
{{- define "moe-serve.affinity" -}}
{{- $ours := printf "%s\n%s" (include "moe-serve.nodeAffinity" . | trim) (include "moe-serve.podAffinity" . | trim) | fromYaml -}}
{{- $all := dict -}}
{{- range $kind := list "nodeAffinity" "podAffinity" "podAntiAffinity" -}}
{{- $mine := get $ours $kind | default dict -}}{{- $theirs := get $.Values.affinity $kind | default dict -}}
{{- $found := merge (dict) $mine $theirs -}}
{{- range $when := list "requiredDuringSchedulingIgnoredDuringExecution" "preferredDuringSchedulingIgnoredDuringExecution" -}}
{{- if and (kindIs "slice" (get $mine $when)) (kindIs "slice" (get $theirs $when)) -}}
{{- $_ := set $found $when (concat (get $mine $when) (get $theirs $when)) -}}
{{- end -}}
{{- end -}}
{{- if $found -}}{{- $_ := set $all $kind $found -}}{{- end -}}
{{- end -}}
{{- if $all -}}{{- toYaml $all -}}{{- end -}}
{{- end -}}

{{- define "moe-serve.topologySpread" -}}
{{- $selector := dict "matchLabels" (include "moe-serve.selector" (list . "server") | fromYaml) -}}
{{- $given := .Values.topologySpreadConstraints -}}
{{- if and (not $given) (eq .Values.gpu.placement "spread") -}}
{{- $given = list (dict "maxSkew" 1 "topologyKey" "kubernetes.io/hostname" "whenUnsatisfiable" "ScheduleAnyway") -}}
{{- end -}}
{{- range $given }}
- {{ merge (deepCopy .) (dict "labelSelector" (ternary .labelSelector $selector (hasKey . "labelSelector")) "maxSkew" 1) | toJson }}
{{- end }}
{{- end -}}

{{/* Where a pod may be, of the server and of the pre-pull. */}}
{{- define "moe-serve.placement" -}}
{{- with .Values.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- with .Values.schedulerName }}
schedulerName: {{ . }}
{{- end }}
{{- with .Values.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{/* What is compiled for one image must not meet another. */}}
{{- define "moe-serve.cacheFolder" -}}
{{- include "moe-serve.image" . | sha256sum | trunc 16 -}}
{{- end -}}

{{- define "moe-serve.volumes" -}}
- name: cache
  {{- if eq .Values.cache.type "claim" }}
  persistentVolumeClaim:
    claimName: {{ .Values.cache.claim.name }}
  {{- else if eq .Values.cache.type "hostPath" }}
  hostPath:
    path: {{ .Values.cache.hostPath }}
    # One that the kubelet makes belongs to root alone.
    type: Directory
  {{- else }}
  emptyDir:
    sizeLimit: {{ .Values.cache.sizeGiB }}Gi
  {{- end }}
- name: tmp
  emptyDir:
    sizeLimit: {{ .Values.tmp.sizeGiB }}Gi
- name: shm
  emptyDir:
    medium: Memory
    sizeLimit: {{ .Values.shm.sizeGiB }}Gi
{{- if has .Values.model.source (list "claim" "job") }}
- name: model
  persistentVolumeClaim:
    claimName: {{ include "moe-serve.modelClaim" . }}
    readOnly: true
{{- else if eq .Values.model.source "image" }}
- name: model
  image:
    reference: {{ .Values.model.image.reference }}
    pullPolicy: {{ .Values.model.image.pullPolicy }}
{{- end }}
{{- with .Values.extraVolumes }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{- define "moe-serve.mounts" -}}
- name: cache
  mountPath: /var/cache/moe-serve
  {{- if ne .Values.cache.type "emptyDir" }}
  subPath: {{ include "moe-serve.cacheFolder" . }}
  {{- end }}
- name: tmp
  mountPath: /tmp
- name: shm
  mountPath: /dev/shm
{{- if has .Values.model.source (list "claim" "job" "image") }}
- name: model
  mountPath: /models
  readOnly: true
{{- end }}
{{- with .Values.extraVolumeMounts }}
{{ toYaml . }}
{{- end }}
{{- end -}}
