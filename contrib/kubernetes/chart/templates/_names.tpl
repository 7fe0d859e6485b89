{{- /* SPDX-License-Identifier: MIT */ -}}

{{- /* Of what belongs to this release. */ -}}
{{- define "unshard.fullname" -}}
{{- if contains .Chart.Name .Release.Name -}}
{{- .Release.Name | trunc 63 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name .Chart.Name | trunc 63 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- define "unshard.selectorLabels" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "unshard.labels" -}}
{{ include "unshard.selectorLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
{{- end -}}

{{- define "unshard.image" -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end -}}

{{- define "unshard.mountpoint" -}}
{{ .Values.mount.directory }}/{{ .Values.mount.name }}
{{- end -}}

{{- /* The list after -o. Numbers come as floating point; a comma within a value is escaped. */ -}}
{{- define "unshard.options" -}}
{{- $options := list "allow_other" -}}
{{- if .Values.metrics.hostPath -}}
{{- $options = append $options (printf "metrics_file=/metrics/unshard-%s.prom" .Values.mount.name) -}}
{{- end -}}
{{- range $name, $value := .Values.options -}}
{{- if kindIs "bool" $value -}}
{{- if $value -}}{{- $options = append $options $name -}}{{- end -}}
{{- else -}}
{{- if kindIs "float64" $value -}}{{- $value = int64 $value | toString -}}{{- end -}}
{{- $value = toString $value | replace "\\" "\\\\" | replace "," "\\," -}}
{{- $options = append $options (printf "%s=%s" $name $value) -}}
{{- end -}}
{{- end -}}
{{- join "," $options -}}
{{- end -}}
