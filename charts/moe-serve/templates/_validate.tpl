{{/* What a schema cannot say. Each refusal names the path and the rule. */}}
{{- define "moe-serve.validate" -}}
{{- if not .Values.enabled -}}
{{- fail "enabled: false; only the condition of a parent chart's dependency reads it; to serve nothing set replicas to 0, or uninstall" -}}
{{- end -}}
{{- include "moe-serve.validateNames" . -}}
{{- include "moe-serve.validateSizes" . -}}
{{- include "moe-serve.validateArgs" . -}}
{{- include "moe-serve.validateEnv" . -}}
{{- include "moe-serve.validateVersions" . -}}
{{- include "moe-serve.validatePadding" . -}}
{{- include "moe-serve.validateRollout" . -}}
{{- include "moe-serve.validateSources" . -}}
{{- include "moe-serve.validateNetwork" . -}}
{{- include "moe-serve.validateArm" . -}}
{{- end -}}

{{- define "moe-serve.validateSizes" -}}
{{- $ranks := include "moe-serve.ranks" . | int -}}
{{- $count := int .Values.gpu.count -}}
{{- if gt $ranks 8 -}}
{{- fail (printf "engine.dataParallelSize: times engine.tensorParallelSize it is %d GPUs; a node has 8" $ranks) -}}
{{- end -}}
{{- if and (gt $count 0) (ne $count $ranks) -}}
{{- fail (printf "gpu.count: %d; it must be engine.tensorParallelSize times engine.dataParallelSize, which is %d" $count $ranks) -}}
{{- end -}}
{{- if and .Values.engine.expertParallel (eq $ranks 1) -}}
{{- fail "engine.expertParallel: with one GPU there is nothing to spread experts over; set a parallel size, or false" -}}
{{- end -}}
{{- range .Values.tolerations -}}
{{- if and (eq (default "Equal" .operator) "Exists") (not .key) -}}
{{- fail "tolerations: one without a key tolerates amd-gpu-unhealthy too; name the taints to tolerate" -}}
{{- end -}}
{{- if eq (default "" .key) "amd-gpu-unhealthy" -}}
{{- fail "tolerations: amd-gpu-unhealthy marks a node whose GPU is broken; do not tolerate it" -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* Each of these has a value, which other things follow. */}}
{{- define "moe-serve.validateArgs" -}}
{{- $owned := dict
  "--model" "model.name" "--revision" "model.revision" "--served-model-name" "model.servedName"
  "--host" "service.port" "--port" "service.port" "--api-key" "apiKey.existingSecret"
  "--tensor-parallel-size" "engine.tensorParallelSize" "-tp" "engine.tensorParallelSize"
  "--data-parallel-size" "engine.dataParallelSize" "-dp" "engine.dataParallelSize"
  "--enable-expert-parallel" "engine.expertParallel" "-ep" "engine.expertParallel"
  "--shutdown-timeout" "drain.seconds" "--disable-access-log-for-endpoints" "nothing: probes are never logged" -}}
{{- $oneNode := "one pod is one whole server on one node, and the chart offers no other; leave it out" -}}
{{- $parallel := "the chart spreads a model by engine.tensorParallelSize and engine.dataParallelSize alone; set these" -}}
{{- $tls := "probes, metrics and Service use plain HTTP; end TLS at the gateway (route.gateways)" -}}
{{- $refused := dict "--pipeline-parallel-size" $parallel "-pp" $parallel
  "--nnodes" $oneNode "-n" $oneNode "--node-rank" $oneNode "-r" $oneNode "--master-addr" $oneNode "--master-port" $oneNode
  "--data-parallel-rank" $oneNode "--data-parallel-start-rank" $oneNode "--data-parallel-size-local" $oneNode
  "--data-parallel-address" $oneNode "--data-parallel-rpc-port" $oneNode "--data-parallel-hybrid-lb" $oneNode
  "--data-parallel-external-lb" $oneNode "--data-parallel-multi-port-external-lb" $oneNode "--headless" $oneNode
  "--config" "its file may set what the chart's values own; write its arguments into engine.args"
  "--uds" "probes and Service use TCP port 8000; leave it out"
  "--grpc" "probes and Service speak HTTP; leave it out"
  "--ssl-keyfile" $tls "--ssl-certfile" $tls "--ssl-ca-certs" $tls "--ssl-cert-reqs" $tls "--ssl-ciphers" $tls "--enable-ssl-refresh" $tls -}}
{{- range $list := list "args" "extraArgs" -}}
{{- range $i, $arg := get $.Values.engine $list -}}
{{- $where := printf "engine.%s[%d]" $list $i -}}
{{- $flag := regexFind "^-[^= ]*" $arg | replace "_" "-" -}}
{{- /* vLLM takes every unambiguous beginning of a long flag for the flag. */ -}}
{{- range $known := concat (keys $owned) (keys $refused) | sortAlpha -}}
{{- if or (eq $flag $known) (and (hasPrefix "--" $flag) (gt (len $flag) 6) (hasPrefix $flag $known)) -}}
{{- if hasKey $owned $known -}}
{{- fail (printf "%s: %s is the chart's own; set %s" $where $known (get $owned $known)) -}}
{{- end -}}
{{- fail (printf "%s: %s cannot be given: %s" $where $known (get $refused $known)) -}}
{{- end -}}
{{- end -}}
{{- if regexMatch "^-[^= ]*[ \t]" $arg -}}
{{- fail (printf "%s: %q is a flag and its value in one word, which vLLM takes for one flag; write FLAG=VALUE" $where $arg) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- define "moe-serve.validateEnv" -}}
{{- $owned := dict
  "MOE_SERVE_PADDING" "padding.policy" "MOE_SERVE_MAX_NEURON_LOSS" "padding.maxNeuronLoss"
  "MOE_SERVE_MARKERS" "markers.mode" "MOE_SERVE_MARKER_LAYERS" "markers.layers"
  "MOE_SERVE_MARKER_BUDGET" "markers.budget" "MOE_SERVE_ALLOW_KNOWN_BAD" "engine.allowKnownBad"
  "MOE_SERVE_RECORD_DIR" "nothing: server and exporter share /dev/shm/moe-serve"
  "VLLM_API_KEY" "apiKey.existingSecret" "HF_TOKEN" "model.hfToken.existingSecret"
  "VLLM_PLUGINS" "padding.policy (off: the plugin patches nothing)" -}}
{{- $known := .Files.Get "files/vllm-env.json" | fromJson -}}
{{- $names := concat (get $known "names") .Values.engine.unknownEnv -}}
{{- $given := list -}}
{{- range $name, $_ := .Values.engine.env }}{{- $given = append $given (list (printf "engine.env.%s" $name) $name) -}}{{- end -}}
{{- range $i, $entry := .Values.engine.extraEnv }}{{- $given = append $given (list (printf "engine.extraEnv[%d]" $i) $entry.name) -}}{{- end -}}
{{- range $given -}}
{{- $path := first . -}}{{- $name := last . -}}
{{- if hasKey $owned $name -}}
{{- fail (printf "%s: %s is the chart's own; set %s" $path $name (get $owned $name)) -}}
{{- end -}}
{{- if and (hasPrefix "VLLM_" $name) (not (has $name $names)) -}}
{{- fail (printf "%s: vLLM %s knows no %s and would ignore it; correct it, or list it in engine.unknownEnv" $path (get $known "vllm") $name) -}}
{{- end -}}
{{- if and (hasPrefix "MOE_SERVE_" $name) (not (hasPrefix "MOE_SERVE_EMULATE" $name)) -}}
{{- fail (printf "%s: moe-serve knows no %s and would ignore it; correct it" $path $name) -}}
{{- end -}}
{{- end -}}
{{- $settings := include "moe-serve.settings" . | fromYaml -}}
{{- $seen := dict -}}
{{- range $i, $entry := .Values.engine.extraEnv -}}
{{- $where := printf "engine.extraEnv[%d]: %s" $i $entry.name -}}
{{- if hasKey $.Values.engine.env $entry.name -}}
{{- fail (printf "%s is in engine.env already; name it once" $where) -}}
{{- end -}}
{{- if hasKey $settings $entry.name -}}
{{- fail (printf "%s is set to %q by the chart already; leave it out" $where (get $settings $entry.name)) -}}
{{- end -}}
{{- if hasKey $seen $entry.name -}}
{{- fail (printf "%s stands there twice; name it once" $where) -}}
{{- end -}}
{{- $_ := set $seen $entry.name true -}}
{{- end -}}
{{- if and (ne .Values.model.source "hub") (hasKey .Values.engine.env "HF_HUB_OFFLINE") -}}
{{- fail (printf "engine.env.HF_HUB_OFFLINE: the chart sets it, since model.source is %s; leave it out" .Values.model.source) -}}
{{- end -}}
{{- if and (eq .Values.model.source "job") .Values.model.job.endpoint -}}
{{- range $i, $entry := concat .Values.engine.extraEnv .Values.model.job.extraEnv -}}
{{- if eq $entry.name "HF_ENDPOINT" -}}
{{- fail "model.job.endpoint: HF_ENDPOINT is in an extraEnv too; give the address once" -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- range $i, $entry := .Values.model.job.extraEnv -}}
{{- if has $entry.name (list "HF_TOKEN" "HF_HUB_OFFLINE") -}}
{{- fail (printf "model.job.extraEnv[%d]: %s is the chart's own; set %s" $i $entry.name (ternary "model.hfToken.existingSecret" "model.source" (eq $entry.name "HF_TOKEN"))) -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* Whether AITER's fused MoE can run at all: only then do pads and its known faults matter. */}}
{{- define "moe-serve.usesAiterMoe" -}}
{{- $env := .Values.engine.env -}}
{{- $on := list "1" "true" "True" -}}
{{- if and (has (get $env "VLLM_ROCM_USE_AITER") $on) (has (get $env "VLLM_ROCM_USE_AITER_MOE" | default "1") $on) (gt (int .Values.gpu.count) 0) }}yes{{ end -}}
{{- end -}}

{{/* Which releases a version may be, as keys that sort as releases do, with commas between them: a release its own;
a candidate or a development build the one before it and its own, the latter the next line's too; `unknown`, a nightly
and a build that comes after no known release all of them. The rules are those of moe_serve.padding.builds. Given: the
version, the known releases by their keys, how many numbers name a release's line. */}}
{{- define "moe-serve.releaseKeys" -}}
{{- $known := keys .known | sortAlpha -}}
{{- $pattern := "^v?([0-9]+)\\.([0-9]+)(?:\\.([0-9]+))?(?:\\.[0-9]+)*(?:[-_.]?(a|b|rc)[-_.]?[0-9]+)?(?:[-_.]?post[-_.]?([0-9]+))?(?:[-_.]?(dev)[-_.]?[0-9]+)?(?:\\+.*)?$" -}}
{{- $found := $known -}}
{{- if regexMatch $pattern .version -}}
{{- $part := splitList "," (regexReplaceAll $pattern .version "${1},${2},${3},${4},${5},${6}") -}}
{{- $numbers := list (int (index $part 0)) (int (index $part 1)) (int (index $part 2)) -}}
{{- $post := ternary 0 (add1 (int (index $part 4)) | int) (eq (index $part 4) "") -}}
{{- $own := printf "%05d.%05d.%05d.%05d" (index $numbers 0) (index $numbers 1) (index $numbers 2) $post -}}
{{- $candidate := or (ne (index $part 3) "") (ne (index $part 5) "") -}}
{{- if ge $own (first $known) -}}
{{- $found = list $own -}}
{{- if $candidate -}}
{{- range $known -}}{{- if lt . $own -}}{{- $found = list . $own -}}{{- end -}}{{- end -}}
{{- end -}}
{{- if ne (index $part 5) "" -}}
{{- $line := int .line -}}
{{- $next := ternary (printf "%05d.%05d.%05d.%05d" (index $numbers 0) (index $numbers 1 | add1 | int) 0 0) (printf "%05d.%05d.%05d.%05d" (index $numbers 0) (index $numbers 1) (index $numbers 2 | add1 | int) 0) (eq $line 2) -}}
{{- $found = append $found $next -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- join "," $found -}}
{{- end -}}

{{/* The rows are about GPT-OSS on gfx950, as those of `moe-serve serve`, which they come from. */}}
{{- define "moe-serve.validateVersions" -}}
{{- $here := and (has .Values.gpu.product (list "MI355X" "MI350X")) (contains "gpt-oss" .Values.model.name) -}}
{{- if and $here (include "moe-serve.usesAiterMoe" .) (not .Values.engine.allowKnownBad) -}}
{{- $table := .Files.Get "files/padding.json" | fromJson -}}
{{- $vllms := include "moe-serve.releaseKeys" (dict "version" .Values.image.vllm "known" (get $table "vllm") "line" 2) | splitList "," -}}
{{- $aiters := include "moe-serve.releaseKeys" (dict "version" .Values.image.aiter "known" (get $table "aiter") "line" 3) | splitList "," -}}
{{- $ranks := include "moe-serve.ranks" . | int -}}
{{- $unsplit := has (get .Values.engine.env "AITER_KSPLIT" | toString) (list "1" "-1") -}}
{{- range $row := .Files.Get "files/known-bad.json" | fromJson | dig "rows" (list) -}}
{{- $ours := and (gt $ranks (int .tp_above)) (not (and .split_k_only $unsplit)) -}}
{{- $vllm := not .vllm_bound -}}
{{- if le (len $vllms) 3 -}}
{{- range $vllms -}}{{- if and (ge . $row.vllm_since_key) (lt . $row.vllm_below_key) -}}{{- $vllm = true -}}{{- end -}}{{- end -}}
{{- end -}}
{{- $aiter := false -}}
{{- range $aiters -}}{{- if and (ge . $row.aiter_since_key) (lt . $row.aiter_below_key) -}}{{- $aiter = true -}}{{- end -}}{{- end -}}
{{- if and $ours $vllm $aiter -}}
{{- fail (printf "image.vllm: %s with AITER %s on %d GPU is known to answer wrongly (%s): %s (%s); %s, or set engine.allowKnownBad" $.Values.image.vllm $.Values.image.aiter $ranks .id .what .evidence .instead) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* The contract's answer for these versions and sizes, the worst of all that they may be: a lost share, or the name of
a rule. */}}
{{- define "moe-serve.paddingAnswer" -}}
{{- $table := .Files.Get "files/padding.json" | fromJson -}}
{{- $engine := .Values.engine -}}
{{- $key := printf "tp%d dp%d%s" (int $engine.tensorParallelSize) (int $engine.dataParallelSize) (ternary " ep" "" $engine.expertParallel) -}}
{{- $ksplit := ternary "ksplit1" "default" (has (get $engine.env "AITER_KSPLIT" | toString) (list "1" "-1")) -}}
{{- $worst := "0" -}}
{{- range $vllm := include "moe-serve.releaseKeys" (dict "version" .Values.image.vllm "known" (get $table "vllm") "line" 2) | splitList "," -}}
{{- range $aiter := include "moe-serve.releaseKeys" (dict "version" $.Values.image.aiter "known" (get $table "aiter") "line" 3) | splitList "," -}}
{{- $v := include "moe-serve.lastRelease" (dict "key" $vllm "known" (get $table "vllm")) -}}
{{- $a := include "moe-serve.lastRelease" (dict "key" $aiter "known" (get $table "aiter")) -}}
{{- $answer := get (dig $v $a $ksplit $key dict (get $table "answers")) $.Values.padding.policy | toString -}}
{{- if regexMatch "^[0-9.e-]+$" $worst -}}
{{- if or (not (regexMatch "^[0-9.e-]+$" $answer)) (gt (float64 $answer) (float64 $worst)) -}}{{- $worst = $answer -}}{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- $worst -}}
{{- end -}}

{{/* The last known release that is not newer. */}}
{{- define "moe-serve.lastRelease" -}}
{{- $last := first (keys .known | sortAlpha) -}}
{{- range keys .known | sortAlpha -}}{{- if le . $.key -}}{{- $last = . -}}{{- end -}}{{- end -}}
{{- get .known $last -}}
{{- end -}}

{{- define "moe-serve.validatePadding" -}}
{{- $padding := .Values.padding -}}
{{- if and (ne $padding.policy "off") (include "moe-serve.usesAiterMoe" .) (contains "gpt-oss-120b" .Values.model.name) -}}
{{- $answer := include "moe-serve.paddingAnswer" . -}}
{{- $where := printf "vLLM %s, AITER %s, %s GPU" .Values.image.vllm .Values.image.aiter (include "moe-serve.ranks" .) -}}
{{- if not (regexMatch "^[0-9.e-]+$" $answer) -}}
{{- if not .Values.engine.allowKnownBad -}}
{{- fail (printf "padding.policy: %s breaks the rule %s (%s), which no loss budget covers; take aligned, or the AITER that this vLLM pins" $padding.policy $answer $where) -}}
{{- end -}}
{{- else if gt (float64 $answer) (float64 $padding.maxNeuronLoss) -}}
{{- fail (printf "padding.policy: %s zeroes %.2f %% of the live neurons (%s), more than padding.maxNeuronLoss allows (%.2f %%); take aligned, or declare the loss" $padding.policy (mulf 100 (float64 $answer)) $where (mulf 100 (float64 $padding.maxNeuronLoss))) -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- define "moe-serve.validateRollout" -}}
{{- $rollout := .Values.rollout -}}
{{- $surge := int $rollout.maxSurge -}}{{- $missing := int $rollout.maxUnavailable -}}
{{- $least := include "moe-serve.leastReplicas" . | int -}}
{{- if and (eq $surge 0) (eq $missing 0) -}}
{{- fail "rollout.maxUnavailable: with rollout.maxSurge also 0 an update cannot start; set one of them to 1" -}}
{{- end -}}
{{- $needs := mul $surge .Values.gpu.count | int -}}
{{- if gt $needs (int $rollout.spareGpus) -}}
{{- fail (printf "rollout.maxSurge: %d more pods need %d spare GPUs, and rollout.spareGpus is %d; an update of a full cluster would wait forever" $surge $needs (int $rollout.spareGpus)) -}}
{{- end -}}
{{- if and (gt $least 0) (eq $surge 0) (ge $missing $least) (not $rollout.allowDowntime) -}}
{{- fail (printf "rollout.maxUnavailable: an update takes all %d replicas away at once; set more replicas, rollout.maxSurge with spare GPUs, or rollout.allowDowntime" $least) -}}
{{- end -}}
{{- if .Values.autoscaling.enabled -}}
{{- if gt (int .Values.autoscaling.minReplicas) (int .Values.autoscaling.maxReplicas) -}}
{{- fail "autoscaling.minReplicas: more than autoscaling.maxReplicas" -}}
{{- end -}}
{{- if not .Values.autoscaling.prometheus -}}
{{- fail "autoscaling.prometheus: the address of Prometheus is missing" -}}
{{- end -}}
{{- if not .Values.monitoring.podMonitor.enabled -}}
{{- fail "autoscaling.enabled: it asks for series with the label arm, which monitoring.podMonitor sets; enable that" -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- define "moe-serve.validateSources" -}}
{{- $model := .Values.model -}}
{{- if and (eq $model.source "claim") (not $model.claim.name) -}}
{{- fail "model.claim.name: missing; model.source is claim" -}}
{{- end -}}
{{- if and (eq $model.source "image") (not $model.image.reference) -}}
{{- fail "model.image.reference: missing; model.source is image" -}}
{{- end -}}
{{- if and (eq $model.source "path") (not (hasPrefix "/" $model.path)) -}}
{{- fail "model.path: model.source is path, so it must be an absolute folder" -}}
{{- end -}}
{{- if and (has $model.source (list "claim" "image")) (or (hasPrefix "/" $model.path) (contains ".." $model.path)) -}}
{{- fail "model.path: it is a folder below the volume; give it without a leading / and without .." -}}
{{- end -}}
{{- if and $model.job.checksums (ne $model.source "job") -}}
{{- fail "model.job.checksums: only the Job checks them; model.source is not job" -}}
{{- end -}}
{{- if and (eq $model.source "objectStorage") (not (regexMatch "^(s3|gs|az)://[^/ ]+(/[^ ]*)?$" $model.objectStorage.uri)) -}}
{{- fail (printf "model.objectStorage.uri: %q is no address of a bucket; model.source is objectStorage, so write s3://BUCKET/PATH, gs://BUCKET/PATH or az://CONTAINER/PATH" $model.objectStorage.uri) -}}
{{- end -}}
{{- if and $model.objectStorage.uri (ne $model.source "objectStorage") -}}
{{- fail "model.objectStorage.uri: nothing reads it; set model.source to objectStorage" -}}
{{- end -}}
{{- $pods := add (include "moe-serve.replicas" . | int) .Values.rollout.maxSurge | int -}}
{{- if and (eq $model.source "job") (eq $model.job.accessMode "ReadWriteOnce") (gt (mul $pods .Values.gpu.count | int) 8) -}}
{{- fail (printf "model.job.accessMode: ReadWriteOnce keeps all pods on one node, and %d pods of %d GPU do not fit a node's 8; use ReadWriteMany, or fewer pods" $pods (int .Values.gpu.count)) -}}
{{- end -}}
{{- if and (gt $pods 1) (eq .Values.cache.type "claim") (eq .Values.cache.claim.accessMode "ReadWriteOnce") -}}
{{- fail "cache.claim.accessMode: ReadWriteOnce cannot be shared by several pods; use a ReadWriteMany claim or emptyDir" -}}
{{- end -}}
{{- if and (eq .Values.cache.type "claim") (not .Values.cache.claim.name) -}}
{{- fail "cache.claim.name: missing; cache.type is claim" -}}
{{- end -}}
{{- if and (eq .Values.cache.type "hostPath") (not .Values.cache.hostPath) -}}
{{- fail "cache.hostPath: missing; cache.type is hostPath" -}}
{{- end -}}
{{- if and (eq .Values.cache.type "hostPath") (not (kindIs "invalid" .Values.security.runAsGroup)) (ne (int .Values.security.runAsGroup) 0) -}}
{{- fail "cache.type: in a hostPath the kubelet makes the image's folder as root's, which only group 0 can write; set security.runAsGroup to 0, or use a claim" -}}
{{- end -}}
{{- if and (eq $model.source "hub") (eq .Values.cache.type "emptyDir") (gt (int .Values.gpu.count) 0) (lt (int .Values.cache.sizeGiB) 80) (contains "120b" $model.name) -}}
{{- fail "cache.sizeGiB: with model.source hub the weights (about 63 GiB) are in the cache; give 80 or more" -}}
{{- end -}}
{{- end -}}

{{- define "moe-serve.validateNetwork" -}}
{{- $route := .Values.route -}}
{{- if and (eq $route.owner "helm") (not $route.gateways) -}}
{{- fail "route.gateways: missing; route.owner is helm" -}}
{{- end -}}
{{- if and (ne $route.owner "helm") (or $route.otherArms $route.gateways $route.redirectGateways) -}}
{{- fail "route.owner: gateways and other arms are given, but only helm renders a route; the controller's is set in its own chart" -}}
{{- end -}}
{{- if and (eq $route.backend "InferencePool") (not .Values.inferencePool.enabled) -}}
{{- fail "route.backend: InferencePool needs inferencePool.enabled" -}}
{{- end -}}
{{- if and .Values.inferencePool.enabled (not .Values.inferencePool.endpointPicker) -}}
{{- fail "inferencePool.endpointPicker: missing; a pool needs the Service that picks its endpoints" -}}
{{- end -}}
{{- end -}}

{{- define "moe-serve.validateArm" -}}
{{- if and .Values.gpu.nodeAffinity (gt (int .Values.gpu.count) 0) (dig "nodeAffinity" "requiredDuringSchedulingIgnoredDuringExecution" "" .Values.affinity) -}}
{{- fail "affinity.nodeAffinity: the chart's own required terms would be lost; put yours into gpu.nodeExpressions, or switch gpu.nodeAffinity off" -}}
{{- end -}}
{{- if and .Values.comparedWith (eq .Values.comparedWith (include "moe-serve.configDigest" .)) (ne .Values.purpose "aa") -}}
{{- fail "comparedWith: both arms have the same configuration, so there is nothing to compare; change one, or set purpose to aa" -}}
{{- end -}}
{{- if and (eq .Values.gpu.colocateWithArm (include "moe-serve.arm" .)) -}}
{{- fail "gpu.colocateWithArm: this is the arm itself; use gpu.placement pack" -}}
{{- end -}}
{{- if gt (int .Values.tests.minRight) (len .Values.tests.questions) -}}
{{- fail "tests.minRight: more than there are tests.questions" -}}
{{- end -}}
{{- range $key, $_ := .Values.podLabels -}}
{{- if or (hasPrefix "app.kubernetes.io/" $key) (hasPrefix "moe-serve.io/" $key) -}}
{{- fail (printf "podLabels: %s is the chart's own" $key) -}}
{{- end -}}
{{- end -}}
{{- range $key, $_ := .Values.commonLabels -}}
{{- if or (hasPrefix "app.kubernetes.io/" $key) (hasPrefix "moe-serve.io/" $key) (hasPrefix "helm.sh/" $key) -}}
{{- fail (printf "commonLabels: %s is the chart's own" $key) -}}
{{- end -}}
{{- if hasKey $.Values.podLabels $key -}}
{{- fail (printf "commonLabels: %s is in podLabels too, and the test's pod has both; name it once" $key) -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* Names that become names of objects, or parts of them. */}}
{{- define "moe-serve.validateNames" -}}
{{- $model := .Values.model -}}
{{- if contains "://" $model.name -}}
{{- fail (printf "model.name: %s is an address, not a name on a hub; for a bucket set model.source to objectStorage and model.objectStorage.uri" $model.name) -}}
{{- end -}}
{{- range $path, $name := dict "model.name" $model.name "model.servedName" $model.servedName -}}
{{- if and $name (not (regexMatch "^[A-Za-z0-9]([A-Za-z0-9._/-]*[A-Za-z0-9])?$" $name)) -}}
{{- fail (printf "%s: %q; it is also a label, so it takes letters, digits, '.', '_', '/' and '-', and begins and ends with a letter or digit" $path $name) -}}
{{- end -}}
{{- end -}}
{{- range $path, $registry := dict "global.imageRegistry" .Values.global.imageRegistry "image.registry" .Values.image.registry "opsImage.registry" .Values.opsImage.registry -}}
{{- if contains "://" $registry -}}
{{- fail (printf "%s: %s has a scheme, which no image's name has; write HOST[:PORT][/PATH]" $path $registry) -}}
{{- end -}}
{{- end -}}
{{- $names := dict "model.claim.name" $model.claim.name "cache.claim.name" .Values.cache.claim.name
  "apiKey.existingSecret" .Values.apiKey.existingSecret "model.hfToken.existingSecret" $model.hfToken.existingSecret
  "serviceAccount.name" .Values.serviceAccount.name "priorityClassName" .Values.priorityClassName
  "model.job.priorityClassName" $model.job.priorityClassName "runtimeClassName" .Values.runtimeClassName
  "model.job.storageClass" $model.job.storageClass "inferencePool.endpointPicker" .Values.inferencePool.endpointPicker
  "autoscaling.authentication.name" .Values.autoscaling.authentication.name -}}
{{- range $i, $secret := .Values.global.imagePullSecrets -}}
{{- $_ := set $names (printf "global.imagePullSecrets[%d]" $i) (ternary (get (ternary $secret dict (kindIs "map" $secret)) "name") $secret (kindIs "map" $secret)) -}}
{{- end -}}
{{- range $path, $name := $names -}}
{{- if and $name (not (regexMatch "^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$" $name)) -}}
{{- fail (printf "%s: %q is no name of a Kubernetes object; it takes small letters, digits, '-' and '.'" $path $name) -}}
{{- end -}}
{{- end -}}
{{- end -}}
