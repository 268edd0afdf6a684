{{/* GPUs, and so workers, of a pod. */}}
{{- define "moe-serve.ranks" -}}
{{- mul .Values.engine.tensorParallelSize .Values.engine.dataParallelSize -}}
{{- end -}}

{{/* Seconds until load balancers have forgotten a pod that is to stop; and until a drained server has ended. */}}
{{- define "moe-serve.preStopSeconds" -}}15{{- end -}}
{{- /* vLLM gives its engines 15 s to free a ROCm GPU (v1/engine/utils.py), and its server ends after them. */ -}}
{{- define "moe-serve.endSeconds" -}}30{{- end -}}

{{- define "moe-serve.graceSeconds" -}}
{{- add (include "moe-serve.preStopSeconds" .) .Values.drain.seconds (include "moe-serve.endSeconds" .) -}}
{{- end -}}

{{/* One step of an update: the old pod goes, the new one is placed, pulls, starts. */}}
{{- define "moe-serve.stepSeconds" -}}
{{- add (include "moe-serve.graceSeconds" .) .Values.startup.pullSeconds .Values.startup.seconds -}}
{{- end -}}

{{- define "moe-serve.replicas" -}}
{{- if .Values.autoscaling.enabled }}{{ .Values.autoscaling.maxReplicas }}{{ else }}{{ .Values.replicas }}{{ end -}}
{{- end -}}

{{- define "moe-serve.leastReplicas" -}}
{{- if .Values.autoscaling.enabled }}{{ .Values.autoscaling.minReplicas }}{{ else }}{{ .Values.replicas }}{{ end -}}
{{- end -}}

{{- define "moe-serve.steps" -}}
{{- $atOnce := add .Values.rollout.maxSurge .Values.rollout.maxUnavailable | max 1 -}}
{{- div (add (include "moe-serve.replicas" . | int) (sub $atOnce 1)) $atOnce -}}
{{- end -}}

{{/* What `vllm serve` gets first: a folder, or a name that it downloads. */}}
{{- define "moe-serve.modelArgument" -}}
{{- $model := .Values.model -}}
{{- if eq $model.source "hub" }}{{ $model.name }}
{{- else if eq $model.source "path" }}{{ $model.path }}
{{- else if eq $model.source "objectStorage" }}{{ $model.objectStorage.uri }}
{{- else if eq $model.source "job" }}/models/{{ include "moe-serve.jobFolder" . }}
{{- else }}{{ printf "/models/%s" $model.path | trimSuffix "/" }}
{{- end -}}
{{- end -}}

{{- define "moe-serve.jobFolder" -}}
{{- printf "%s/%s" .Values.model.name (default "main" .Values.model.revision) -}}
{{- end -}}

{{- define "moe-serve.args" -}}
{{- $engine := .Values.engine -}}
- {{ include "moe-serve.modelArgument" . }}
- --served-model-name={{ include "moe-serve.servedName" . }}
{{- if and .Values.model.revision (eq .Values.model.source "hub") }}
- --revision={{ .Values.model.revision }}
{{- end }}
- --host=0.0.0.0
- --port=8000
- --tensor-parallel-size={{ $engine.tensorParallelSize }}
{{- if gt (int $engine.dataParallelSize) 1 }}
- --data-parallel-size={{ $engine.dataParallelSize }}
{{- end }}
{{- if $engine.expertParallel }}
- --enable-expert-parallel
{{- end }}
- --shutdown-timeout={{ .Values.drain.seconds }}
- --disable-access-log-for-endpoints=/health,/metrics,/v1/models
{{- if not (include "moe-serve.isStock" .) }}
- --middleware=moe_serve.vllm_plugin.draining.Draining
{{- end }}
{{- range concat $engine.args $engine.extraArgs }}
- {{ . | quote }}
{{- end }}
{{- end -}}

{{/* Environment that decides how the server works; secrets are not in it. */}}
{{- define "moe-serve.settings" -}}
{{- if include "moe-serve.isStock" . }}
{{- /* What our image sets by itself: every place to write is in a volume, and the user has a name. */}}
HOME: /var/cache/moe-serve/home
USER: vllm
LOGNAME: vllm
XDG_CACHE_HOME: /var/cache/moe-serve/xdg
VLLM_CACHE_ROOT: /var/cache/moe-serve/vllm
TRITON_CACHE_DIR: /var/cache/moe-serve/triton
TORCHINDUCTOR_CACHE_DIR: /var/cache/moe-serve/inductor
HF_HOME: /var/cache/moe-serve/huggingface
{{- else }}
MOE_SERVE_PADDING: {{ .Values.padding.policy | quote }}
MOE_SERVE_MAX_NEURON_LOSS: {{ .Values.padding.maxNeuronLoss | quote }}
MOE_SERVE_MARKERS: {{ .Values.markers.mode | quote }}
MOE_SERVE_MARKER_LAYERS: {{ .Values.markers.layers | quote }}
MOE_SERVE_MARKER_BUDGET: {{ .Values.markers.budget | quote }}
{{- if .Values.engine.allowKnownBad }}
MOE_SERVE_ALLOW_KNOWN_BAD: "1"
{{- end }}
{{- end }}
{{- if ne .Values.model.source "hub" }}
HF_HUB_OFFLINE: "1"
{{- end }}
{{- range $name, $value := .Values.engine.env }}
{{ $name }}: {{ $value | quote }}
{{- end }}
{{- end -}}

{{/* 16 digits that are equal where image, arguments, environment and padding are: what two arms may differ in. */}}
{{- define "moe-serve.configDigest" -}}
{{- $parts := list (include "moe-serve.image" .) (include "moe-serve.args" .) (include "moe-serve.settings" .) .Values.engine.extraEnv .Values.engine.extraEnvFrom .Values.gpu.product -}}
{{- toJson $parts | sha256sum | trunc 16 -}}
{{- end -}}

{{- define "moe-serve.env" -}}
{{- range $name, $value := include "moe-serve.settings" . | fromYaml }}
- name: {{ $name }}
  value: {{ $value | quote }}
{{- end }}
{{- with .Values.engine.extraEnv }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/* What the server alone needs. */}}
{{- define "moe-serve.secretEnv" -}}
{{- with .Values.apiKey }}{{- if .existingSecret }}
- name: VLLM_API_KEY
  valueFrom:
    secretKeyRef:
      name: {{ .existingSecret }}
      key: {{ .key }}
{{- end }}{{- end }}
{{- if eq .Values.model.source "hub" }}
{{- include "moe-serve.hfToken" . }}
{{- end }}
{{- end -}}

{{- define "moe-serve.hfToken" -}}
{{- with .Values.model.hfToken }}{{- if .existingSecret }}
- name: HF_TOKEN
  valueFrom:
    secretKeyRef:
      name: {{ .existingSecret }}
      key: {{ .key }}
{{- end }}{{- end }}
{{- end -}}

{{- define "moe-serve.gpuQuantity" -}}
{{- if and (gt (int .Values.gpu.count) 0) (eq .Values.gpu.allocation "devicePlugin") }}
{{ .Values.gpu.resourceName }}: {{ .Values.gpu.count | quote }}
{{- end }}
{{- end -}}

{{/* Whether the pods claim devices instead of counting a resource. */}}
{{- define "moe-serve.claimsDevices" -}}
{{- if and (gt (int .Values.gpu.count) 0) (eq .Values.gpu.allocation "resourceClaim") }}yes{{ end -}}
{{- end -}}

{{/* Of a container: the pod's claim, which the preflight and the server use one after the other. */}}
{{- define "moe-serve.gpuClaim" -}}
{{- if include "moe-serve.claimsDevices" . }}
claims:
  - name: gpu
{{- end }}
{{- end -}}

{{/* A memory-backed /dev/shm is charged to the containers that write to it. */}}
{{- define "moe-serve.memory" -}}
{{ add .Values.resources.memoryGiB .Values.shm.sizeGiB }}Gi
{{- end -}}
