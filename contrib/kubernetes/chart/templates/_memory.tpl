{{- /* SPDX-License-Identifier: MIT */ -}}

{{- /* Mebibytes of a size as unshard or Kubernetes write it (256M, 32Gi), rounded up. */ -}}
{{- define "unshard.mebibytes" -}}
{{- $number := regexFind "^[0-9]+" . | int64 -}}
{{- $unit := regexFind "[KMGTkmgt]" . | upper -}}
{{- if eq $unit "T" -}}{{- mul $number 1048576 -}}
{{- else if eq $unit "G" -}}{{- mul $number 1024 -}}
{{- else if eq $unit "M" -}}{{- $number -}}
{{- else if eq $unit "K" -}}{{- div (add $number 1023) 1024 -}}
{{- else -}}{{- div (add $number 1048575) 1048576 -}}
{{- end -}}
{{- end -}}

{{- /* What the daemon needs whatever is cached: its buffers and itself. */ -}}
{{- define "unshard.ownMebibytes" -}}
{{- $buffer := include "unshard.mebibytes" (.Values.options.buffer | default "256M") | int64 -}}
{{- add $buffer (include "unshard.mebibytes" .Values.memory.daemon | int64) -}}
{{- end -}}

{{- define "unshard.limitMebibytes" -}}
{{- add (include "unshard.ownMebibytes" . | int64) (include "unshard.mebibytes" .Values.memory.pageCache | int64) -}}
{{- end -}}

{{- define "unshard.resources" -}}
{{- $reserved := and .Values.memory.reserved .Values.memory.pageCache -}}
requests:
  cpu: {{ .Values.cpu.request | quote }}
  memory: {{ include (ternary "unshard.limitMebibytes" "unshard.ownMebibytes" (not (empty $reserved))) . }}Mi
{{- if .Values.memory.pageCache }}
limits:
  memory: {{ include "unshard.limitMebibytes" . }}Mi
{{- end }}
{{- end -}}
