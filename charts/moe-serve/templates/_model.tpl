{{- define "moe-serve.modelJobSpec" -}}
backoffLimit: 6
activeDeadlineSeconds: {{ .Values.model.job.deadlineSeconds }}
template:
  metadata:
    labels:
      {{- include "moe-serve.podLabels" (list . "model") | nindent 6 }}
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
          - name: HF_HUB_DISABLE_TELEMETRY
            value: "1"
          {{- with .Values.model.job.endpoint }}
          - name: HF_ENDPOINT
            value: {{ . }}
          {{- end }}
          {{- with include "moe-serve.hfToken" . | trim }}
          {{- . | nindent 10 }}
          {{- end }}
        securityContext:
          {{- include "moe-serve.plainSecurity" . | trim | nindent 10 }}
        resources:
          # 1Gi of its own, and the two volumes below.
          requests: {cpu: "1", memory: 4Gi, ephemeral-storage: 3Gi}
          limits: {cpu: "4", memory: 4Gi, ephemeral-storage: 3Gi}
        volumeMounts:
          - name: model
            mountPath: /models
          - name: cache
            mountPath: /var/cache/moe-serve
          - name: tmp
            mountPath: /tmp
    volumes:
      - name: model
        persistentVolumeClaim:
          claimName: {{ include "moe-serve.modelClaim" . }}
      - name: cache
        emptyDir: {sizeLimit: 1Gi}
      - name: tmp
        emptyDir: {sizeLimit: 1Gi}
{{- end -}}
