{{/* Whole MiB of a quantity as Kubernetes writes it, rounded up. */}}
{{- define "moe-serve.mebibytes" -}}
{{- $factors := dict "Ki" 0.0009765625 "Mi" 1.0 "Gi" 1024.0 "Ti" 1048576.0 "k" 0.00095367431640625 "M" 0.95367431640625 "G" 953.67431640625 "T" 953674.31640625 "bytes" 0.00000095367431640625 -}}
{{- $text := ternary (printf "%.0f" (float64 .)) (toString .) (or (kindIs "float64" .) (kindIs "int" .) (kindIs "int64" .)) -}}
{{- $unit := regexFind "[A-Za-z]*$" $text | default "bytes" -}}
{{- if or (not (regexMatch "^[0-9]+(\\.[0-9]+)?[A-Za-z]*$" $text)) (not (hasKey $factors $unit)) -}}
{{- fail (printf "extraVolumes: emptyDir.sizeLimit %s is not a number with a unit (Ki, Mi, Gi, Ti, k, M, G, T); write it as 10Gi" $text) -}}
{{- end -}}
{{- mulf (regexFind "^[0-9.]+" $text | float64) (get $factors $unit) | ceil | int64 -}}
{{- end -}}

{{/* MiB that the pod's emptyDirs may fill on the node's disk. */}}
{{- define "moe-serve.diskVolumesMiB" -}}
{{- $total := mul 1024 .Values.tmp.sizeGiB -}}
{{- if eq .Values.cache.type "emptyDir" -}}
{{- $total = add $total (mul 1024 .Values.cache.sizeGiB) -}}
{{- end -}}
{{- add $total (include "moe-serve.extraVolumesMiB" .) -}}
{{- end -}}

{{- define "moe-serve.extraVolumesMiB" -}}
{{- $total := 0 -}}
{{- range .Values.extraVolumes -}}
{{- if and (kindIs "map" .emptyDir) (ne (default "" (get (default dict .emptyDir) "medium")) "Memory") (get (default dict .emptyDir) "sizeLimit") -}}
{{- $total = add $total (include "moe-serve.mebibytes" .emptyDir.sizeLimit) -}}
{{- end -}}
{{- end -}}
{{- $total -}}
{{- end -}}

{{/* The kubelet evicts a pod whose containers, logs and emptyDirs on disk hold more than its containers' limits allow
together. So a container that mounts the volumes may fill its own share and all of them. Takes [root, MiB of its own]. */}}
{{- define "moe-serve.disk" -}}
{{- $total := add (last .) (include "moe-serve.diskVolumesMiB" (first .)) -}}
{{- include "moe-serve.sizeOfMiB" $total -}}
{{- end -}}

{{- define "moe-serve.sizeOfMiB" -}}
{{- if mod . 1024 }}{{ . }}Mi{{ else }}{{ div . 1024 }}Gi{{ end -}}
{{- end -}}
