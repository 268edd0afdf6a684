{{/* What a schema cannot say. Each refusal names the path and the rule. */}}
{{- define "moe-canary.validate" -}}
{{- if not .Values.enabled -}}
{{- fail "enabled: false; only the condition of a parent chart's dependency reads it; to run nothing set replicas to 0, or uninstall" -}}
{{- end -}}
{{- range $path, $registry := dict "global.imageRegistry" .Values.global.imageRegistry "image.registry" .Values.image.registry -}}
{{- if contains "://" $registry -}}
{{- fail (printf "%s: %s has a scheme, which no image's name has; write HOST[:PORT][/PATH]" $path $registry) -}}
{{- end -}}
{{- end -}}
{{- $source := .Values.source -}}
{{- range $key := list "arms" "source" -}}
{{- if get $.Values.policy $key -}}
{{- fail (printf "policy.%s: the chart's own source says it; set source.prometheus, source.stable, source.canary" $key) -}}
{{- end -}}
{{- end -}}
{{- if and $source.prometheus.url $source.exporters -}}
{{- fail "source.exporters: source.prometheus.url is set too; a judge has one source" -}}
{{- end -}}
{{- if not (or $source.prometheus.url $source.exporters) -}}
{{- fail "source.prometheus.url: missing; the judge needs Prometheus, or source.exporters" -}}
{{- end -}}
{{- if $source.exporters -}}
{{- range $arm := list "stable" "canary" -}}
{{- if not (get $source.exporters $arm) -}}
{{- fail (printf "source.exporters.%s: missing; both arms are needed" $arm) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- if and $source.prometheus.tokenSecret $source.prometheus.basicAuthSecret -}}
{{- fail "source.prometheus.basicAuthSecret: source.prometheus.tokenSecret is set too; give one" -}}
{{- end -}}
{{- if eq $source.stable $source.canary -}}
{{- fail "source.canary: equal to source.stable; then no arm is told from the other" -}}
{{- end -}}
{{- if and (eq .Values.audit.type "claim") (not .Values.audit.claim) -}}
{{- fail "audit.claim: missing; audit.type is claim" -}}
{{- end -}}
{{- if and (eq .Values.audit.type "claim") (gt (int .Values.replicas) 1) -}}
{{- fail "audit.type: several pods cannot append to one log on a claim; use replicas 1 or emptyDir" -}}
{{- end -}}
{{- if include "moe-canary.isController" . -}}
{{- include "moe-canary.validateController" . -}}
{{- else -}}
{{- range $key := list "plan" "slackSecret" "webhookSecret" -}}
{{- if get $.Values.controller $key -}}
{{- fail (printf "controller.%s: nothing would use it; mode is judge" $key) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- range $key, $_ := .Values.podLabels -}}
{{- if or (hasPrefix "app.kubernetes.io/" $key) (hasPrefix "moe-serve.io/" $key) -}}
{{- fail (printf "podLabels: %s is the chart's own" $key) -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- define "moe-canary.validateController" -}}
{{- if not .Values.controller.plan.name -}}
{{- fail "controller.plan.name: missing; mode is controller, and its rights are to named objects" -}}
{{- end -}}
{{- if not .Values.source.prometheus.url -}}
{{- fail "source.prometheus.url: missing; a controller that is restarted must find the past again" -}}
{{- end -}}
{{- if .Values.comparison.start -}}
{{- fail "comparison.start: the controller keeps when each comparison began; mode is controller" -}}
{{- end -}}
{{- end -}}
