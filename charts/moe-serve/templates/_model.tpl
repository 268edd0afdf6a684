{{- define "moe-serve.modelJobSpec" -}}
backoffLimit: 6
activeDeadlineSeconds: {{ .Values.model.job.deadlineSeconds }}
template:
  metadata:
    labels:
      {{- include "moe-serve.podLabels" (list . "model") | nindent 6 }}
    {{- with .Values.model.job.podAnnotations }}
    annotations:
      {{- toYaml . | nindent 6 }}
    {{- end }}
  spec:
    restartPolicy: OnFailure
    serviceAccountName: {{ include "moe-serve.serviceAccount" . }}
    automountServiceAccountToken: false
    enableServiceLinks: false
    {{- with include "moe-serve.pullSecrets" . | trim }}
    {{- . | nindent 4 }}
    {{- end }}
    securityContext:
      {{- include "moe-serve.podSecurity" . | trim | nindent 6 }}
    {{- with default .Values.priorityClassName .Values.model.job.priorityClassName }}
    priorityClassName: {{ . }}
    {{- end }}
    {{- if eq .Values.model.job.accessMode "ReadWriteOnce" }}
    # The claim comes to one node: that of the servers.
    affinity:
      {{- with include "moe-serve.nodeAffinity" . | trim }}
      {{- . | nindent 6 }}
      {{- end }}
      podAffinity:
        requiredDuringSchedulingIgnoredDuringExecution:
          {{- include "moe-serve.sameNode" . | nindent 10 }}
    {{- end }}
    {{- with .Values.nodeSelector }}
    nodeSelector:
      {{- toYaml . | nindent 6 }}
    {{- end }}
    {{- with .Values.tolerations }}
    tolerations:
      {{- toYaml . | nindent 6 }}
    {{- end }}
    containers:
      - name: download
        image: {{ include "moe-serve.image" . }}
        imagePullPolicy: {{ .Values.image.pullPolicy }}
        command:
          - python3
          - -c
          - |
            {{- .Files.Get "files/fetch_model.py" | nindent 12 }}
          - {{ .Values.model.name }}
          - {{ default "main" .Values.model.revision }}
          - /models/{{ include "moe-serve.jobFolder" . }}
          - {{ .Values.model.job.checksums | toJson | quote }}
        env:
          {{- include "moe-serve.jobEnv" . | trim | nindent 10 }}
          {{- with include "moe-serve.hfToken" . | trim }}
          {{- . | nindent 10 }}
          {{- end }}
        {{- with .Values.engine.extraEnvFrom }}
        envFrom:
          {{- toYaml . | nindent 10 }}
        {{- end }}
        securityContext:
          {{- include "moe-serve.plainSecurity" . | trim | nindent 10 }}
        resources:
          # 1Gi of its own, and the volumes below.
          {{- $disk := include "moe-serve.sizeOfMiB" (add 3072 (include "moe-serve.extraVolumesMiB" .)) }}
          requests: {cpu: "1", memory: 4Gi, ephemeral-storage: {{ $disk }}}
          limits: {cpu: "4", memory: 4Gi, ephemeral-storage: {{ $disk }}}
        volumeMounts:
          - name: model
            mountPath: /models
          - name: cache
            mountPath: /var/cache/moe-serve
          - name: tmp
            mountPath: /tmp
          {{- with .Values.extraVolumeMounts }}
          {{- toYaml . | nindent 10 }}
          {{- end }}
    volumes:
      - name: model
        persistentVolumeClaim:
          claimName: {{ include "moe-serve.modelClaim" . }}
      - name: cache
        emptyDir: {sizeLimit: 1Gi}
      - name: tmp
        emptyDir: {sizeLimit: 1Gi}
      {{- with .Values.extraVolumes }}
      {{- toYaml . | nindent 6 }}
      {{- end }}
{{- end -}}

{{/* The Job's environment: the chart's, what the server's says of network and hub, and the Job's own, which wins. */}}
{{- define "moe-serve.jobEnv" -}}
{{- /* Without a limit the hub's client may keep 10 GB of chunks beside the files. */}}
{{- $own := list (dict "name" "HF_HUB_DISABLE_TELEMETRY" "value" "1") (dict "name" "HF_XET_CHUNK_CACHE_SIZE_BYTES" "value" "0") -}}
{{- with .Values.model.job.endpoint -}}
{{- $own = append $own (dict "name" "HF_ENDPOINT" "value" .) -}}
{{- end -}}
{{- range $name, $value := .Values.engine.env -}}
{{- if regexMatch "^((HTTP|HTTPS|ALL|NO)_PROXY|SSL_CERT_(FILE|DIR)|REQUESTS_CA_BUNDLE|CURL_CA_BUNDLE|HF_.*)$" $name -}}
{{- $own = append $own (dict "name" $name "value" $value) -}}
{{- end -}}
{{- end -}}
{{- $found := dict -}}{{- $order := list -}}
{{- range concat $own .Values.engine.extraEnv .Values.model.job.extraEnv -}}
{{- if not (hasKey $found .name) -}}{{- $order = append $order .name -}}{{- end -}}
{{- $_ := set $found .name . -}}
{{- end -}}
{{- range $order }}
- {{ get $found . | toJson }}
{{- end }}
{{- end -}}
