{{- define "moe-serve.server" -}}
- name: server
  image: {{ include "moe-serve.image" . }}
  imagePullPolicy: {{ .Values.image.pullPolicy }}
  {{- if include "moe-serve.isStock" . }}
  # Not every image of vLLM starts it by itself.
  command: [vllm, serve]
  {{- end }}
  args:
    {{- include "moe-serve.args" . | trim | nindent 4 }}
  env:
    {{- include "moe-serve.env" . | trim | nindent 4 }}
  {{- with include "moe-serve.secretEnv" . | trim }}
  {{- . | nindent 4 }}
  {{- end }}
  {{- with .Values.engine.extraEnvFrom }}
  envFrom:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  ports:
    - name: http
      containerPort: 8000
  securityContext:
    {{- include "moe-serve.containerSecurity" . | trim | nindent 4 }}
  resources:
    requests:
      cpu: {{ .Values.resources.cpu | quote }}
      memory: {{ include "moe-serve.memory" . }}
      ephemeral-storage: {{ include "moe-serve.disk" (list . (mul 1024 .Values.resources.ephemeralGiB)) }}
      {{- with include "moe-serve.gpuQuantity" . | trim }}
      {{- . | nindent 6 }}
      {{- end }}
    limits:
      {{- with .Values.resources.cpuLimit }}
      cpu: {{ . | quote }}
      {{- end }}
      memory: {{ include "moe-serve.memory" . }}
      ephemeral-storage: {{ include "moe-serve.disk" (list . (mul 1024 .Values.resources.ephemeralGiB)) }}
      {{- with include "moe-serve.gpuQuantity" . | trim }}
      {{- . | nindent 6 }}
      {{- end }}
    {{- with include "moe-serve.gpuClaim" . | trim }}
    {{- . | nindent 4 }}
    {{- end }}
  # Until this passes, the two below are not asked.
  startupProbe:
    {{- include "moe-serve.probe" (list .Values.probes.startup (include "moe-serve.startupProbe" .)) | nindent 4 }}
  # vLLM answers 200 without the plugin too: ready is who also proves that safe pads are in force.
  readinessProbe:
    {{- include "moe-serve.probe" (list .Values.probes.readiness (include "moe-serve.readinessProbe" .)) | nindent 4 }}
  livenessProbe:
    {{- include "moe-serve.probe" (list .Values.probes.liveness (include "moe-serve.livenessProbe" .)) | nindent 4 }}
  lifecycle:
    preStop:
      # While load balancers forget the pod, each answer closes its connection: one that a client keeps would stay here
      # until vLLM, once it drains, answers 500 on it.
      exec:
        command: [sh, -c, "touch /tmp/moe-serve-draining; sleep {{ include "moe-serve.preStopSeconds" . }}"]
  volumeMounts:
    {{- include "moe-serve.mounts" . | trim | nindent 4 }}
{{- end -}}

{{/* The chart's probe with the user's fields instead of its own. Takes [the user's, the chart's as YAML]. */}}
{{- define "moe-serve.probe" -}}
{{- $theirs := first . -}}{{- $ours := last . | fromYaml -}}
{{- range list "exec" "httpGet" "tcpSocket" "grpc" -}}
{{- if hasKey $theirs . -}}{{- $ours = omit $ours "exec" "httpGet" -}}{{- end -}}
{{- end -}}
{{- merge (deepCopy $theirs) $ours | toYaml -}}
{{- end -}}

{{- define "moe-serve.startupProbe" -}}
httpGet: {path: /health, port: http}
periodSeconds: 10
timeoutSeconds: 5
failureThreshold: {{ div .Values.startup.seconds 10 }}
{{- end -}}

{{- define "moe-serve.readinessProbe" -}}
exec:
  command:
    {{- include "moe-serve.readyCommand" . | trim | nindent 4 }}
periodSeconds: 10
timeoutSeconds: 10
failureThreshold: 2
{{- end -}}

{{- define "moe-serve.livenessProbe" -}}
httpGet: {path: /health, port: http}
periodSeconds: 10
timeoutSeconds: 5
failureThreshold: 6
{{- end -}}

{{/* Stock vLLM has no proof to give, so its readiness is the server's alone. */}}
{{- define "moe-serve.readyCommand" -}}
{{- if eq .Values.padding.policy "off" -}}
- python3
- -c
- import urllib.request as u; u.urlopen("http://127.0.0.1:8000/health", timeout=5)
{{- else -}}
- moe-serve
- preflight
- --proof
- --ranks={{ include "moe-serve.ranks" . }}
- --url=http://127.0.0.1:8000/health
{{- end -}}
{{- end -}}

{{- define "moe-serve.preflight" -}}
- name: preflight
  image: {{ include "moe-serve.image" . }}
  imagePullPolicy: {{ .Values.image.pullPolicy }}
  command:
    - moe-serve
    - preflight
    - --tp={{ .Values.engine.tensorParallelSize }}
    {{- if gt (int .Values.engine.dataParallelSize) 1 }}
    - --dp={{ .Values.engine.dataParallelSize }}
    {{- end }}
    {{- if .Values.engine.expertParallel }}
    - --ep
    {{- end }}
    {{- /* Other models' weights may not be there yet; their pads the worker judges. */}}
    {{- if regexMatch "(^|/)gpt-oss-(20|120)b$" .Values.model.name }}
    - --model={{ base .Values.model.name }}
    {{- end }}
    {{- range .Values.preflight.skip }}
    - --skip={{ . }}
    {{- end }}
    {{- if eq (int .Values.gpu.count) 0 }}
    - --no-gpu
    {{- else }}
    {{- if ne .Values.gpu.product "MI355X" }}
    - --product={{ .Values.gpu.product }}
    {{- end }}
    {{- if ne (join "," .Values.gpu.partitions) "spx_nps1" }}
    {{- range .Values.gpu.partitions }}
    - --partition={{ . }}
    {{- end }}
    {{- end }}
    {{- end }}
  env:
    {{- include "moe-serve.env" . | trim | nindent 4 }}
  securityContext:
    {{- include "moe-serve.containerSecurity" . | trim | nindent 4 }}
  resources:
    requests:
      cpu: {{ include "moe-serve.cpuRequest" (list . "100m" "2") | quote }}
      memory: 2Gi
      ephemeral-storage: {{ include "moe-serve.disk" (list . 1024) }}
      {{- with include "moe-serve.gpuQuantity" . | trim }}
      {{- . | nindent 6 }}
      {{- end }}
    limits:
      cpu: "2"
      memory: 2Gi
      ephemeral-storage: {{ include "moe-serve.disk" (list . 1024) }}
      {{- with include "moe-serve.gpuQuantity" . | trim }}
      {{- . | nindent 6 }}
      {{- end }}
    {{- with include "moe-serve.gpuClaim" . | trim }}
    {{- . | nindent 4 }}
    {{- end }}
  volumeMounts:
    {{- include "moe-serve.mounts" . | trim | nindent 4 }}
{{- end -}}

{{/* The Job and the pods start together; the pods wait for the mark that it leaves when all is checked. */}}
{{- define "moe-serve.awaitModel" -}}
- name: await-model
  image: {{ include "moe-serve.opsImage" . }}
  imagePullPolicy: {{ include "moe-serve.opsPullPolicy" . }}
  command:
    - python3
    - -c
    - |
      {{- .Files.Get "files/await_model.py" | nindent 6 }}
    - /models/{{ include "moe-serve.jobFolder" . }}
    - {{ .Values.model.job.deadlineSeconds | quote }}
  {{- with .Values.engine.extraEnv }}
  env:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with .Values.engine.extraEnvFrom }}
  envFrom:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  securityContext:
    {{- include "moe-serve.plainSecurity" . | trim | nindent 4 }}
  resources:
    requests: {cpu: {{ include "moe-serve.cpuRequest" (list . "10m" "500m") }}, memory: 64Mi, ephemeral-storage: 64Mi}
    limits: {cpu: 500m, memory: 64Mi, ephemeral-storage: 64Mi}
  volumeMounts:
    - name: model
      mountPath: /models
      readOnly: true
    {{- with .Values.extraVolumeMounts }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
{{- end -}}

{{/* An init container that stays: it is there before the server and until after it, so a drain is seen too. It has
no readiness probe: telemetry must not take a server out of service. */}}
{{- define "moe-serve.exporter" -}}
- name: exporter
  image: {{ include "moe-serve.opsImage" . }}
  imagePullPolicy: {{ include "moe-serve.opsPullPolicy" . }}
  restartPolicy: Always
  args:
    - exporter
    - --record-dir=/dev/shm/moe-serve
    - --listen=0.0.0.0:9400
    - --ranks={{ include "moe-serve.ranks" . }}
  ports:
    - name: metrics
      containerPort: 9400
  securityContext:
    {{- include "moe-serve.plainSecurity" . | trim | nindent 4 }}
  resources:
    requests:
      cpu: {{ include "moe-serve.cpuRequest" (list . "50m" "500m") }}
      memory: {{ .Values.monitoring.exporterMemoryMiB }}Mi
      ephemeral-storage: 64Mi
    limits:
      cpu: 500m
      memory: {{ .Values.monitoring.exporterMemoryMiB }}Mi
      ephemeral-storage: 64Mi
  volumeMounts:
    # It reads the workers' records and writes nothing.
    - name: shm
      mountPath: /dev/shm
      readOnly: true
{{- end -}}

{{- define "moe-serve.initContainers" -}}
{{- if .Values.preflight.enabled }}
{{ include "moe-serve.preflight" . }}
{{- end }}
{{- if eq .Values.model.source "job" }}
{{ include "moe-serve.awaitModel" . }}
{{- end }}
{{- with .Values.extraInitContainers }}
{{ tpl (toYaml .) $ }}
{{- end }}
{{- if .Values.monitoring.exporter }}
{{ include "moe-serve.exporter" . }}
{{- end }}
{{- end -}}

{{/* A container that may use more than it asks for, unless the whole pod is to be Guaranteed. Takes [root, request,
limit]. */}}
{{- define "moe-serve.cpuRequest" -}}
{{- if include "moe-serve.isGuaranteed" (first .) }}{{ last . }}{{ else }}{{ index . 1 }}{{ end -}}
{{- end -}}

{{- define "moe-serve.isGuaranteed" -}}
{{- if eq (toString .Values.resources.cpuLimit) (toString .Values.resources.cpu) }}yes{{ end -}}
{{- end -}}
