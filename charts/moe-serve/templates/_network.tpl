{{/* The port of an address: its own, or its scheme's. */}}
{{- define "moe-serve.portOf" -}}
{{- $parts := urlParse (ternary . (printf "http://%s" .) (contains "://" .)) -}}
{{- regexFind "[0-9]+$" (regexFind ":[0-9]+$" $parts.host) | default (ternary "443" "80" (eq $parts.scheme "https")) -}}
{{- end -}}

{{/* Addresses that the environment gives by value, by variable, as JSON. Secrets and ConfigMaps cannot be read here. */}}
{{- define "moe-serve.addresses" -}}
{{- $found := dict -}}
{{- $names := list "HF_ENDPOINT" "AWS_ENDPOINT_URL" "AWS_ENDPOINT_URL_S3" "HTTPS_PROXY" "HTTP_PROXY" "ALL_PROXY" "https_proxy" "http_proxy" "all_proxy" -}}
{{- range $name, $value := .Values.engine.env -}}
{{- if and (has $name $names) $value -}}{{- $_ := set $found $name $value -}}{{- end -}}
{{- end -}}
{{- range concat .Values.engine.extraEnv (ternary .Values.model.job.extraEnv list (eq .Values.model.source "job")) -}}
{{- if and (has .name $names) .value -}}{{- $_ := set $found .name .value -}}{{- end -}}
{{- end -}}
{{- if and (eq .Values.model.source "job") .Values.model.job.endpoint -}}
{{- $_ := set $found "HF_ENDPOINT" .Values.model.job.endpoint -}}
{{- end -}}
{{- toJson $found -}}
{{- end -}}

{{/* Ports that the weights need, as a JSON list. */}}
{{- define "moe-serve.weightsPorts" -}}
{{- $ports := list -}}
{{- if has .Values.model.source (list "hub" "job" "objectStorage") -}}
{{- $addresses := include "moe-serve.addresses" . | fromJson -}}
{{- $stores := ternary (list "AWS_ENDPOINT_URL" "AWS_ENDPOINT_URL_S3") (list "HF_ENDPOINT") (eq .Values.model.source "objectStorage") -}}
{{- range $name, $address := $addresses -}}
{{- if or (has $name $stores) (contains "_proxy" (lower $name)) -}}
{{- $ports = append $ports (include "moe-serve.portOf" $address | int) -}}
{{- end -}}
{{- end -}}
{{- if not (or (hasKey $addresses (first $stores)) (hasKey $addresses (last $stores))) -}}
{{- $ports = append $ports 443 -}}
{{- end -}}
{{- end -}}
{{- $ports | uniq | sortAlpha | toJson -}}
{{- end -}}
