#!/usr/bin/env bash
# Checks the Kubernetes manifests under deploy/ and the proto files with the tools that are installed: kustomize (or a
# kubectl that includes it), kubeconform, buf. Prints what it leaves out.
set -euo pipefail
# shellcheck source=scripts/lib.sh
source "$(dirname "$0")/lib.sh"
cd "$root"

render() {
  if command -v kustomize >/dev/null; then kustomize build "$1"; else kubectl kustomize "$1"; fi
}
# Debian bookworm's kubectl is too old for the kustomization's labels.
if command -v kustomize >/dev/null || { command -v kubectl >/dev/null && kubectl kustomize deploy/kubernetes/base >/dev/null 2>&1; }; then
  for folder in deploy/kubernetes/base deploy/kubernetes/overlays/*; do
    out=$(render "$folder")
    for must in 'kind: Deployment' 'clusterIP: None' 'runAsNonRoot: true' 'readOnlyRootFilesystem: true' \
      'type: RuntimeDefault' 'readinessProbe:' 'livenessProbe:' 'startupProbe:' \
      'kind: PodDisruptionBudget' 'max_connection_age'; do
      grep -q "$must" <<<"$out" || fail "$folder renders without '$must'"
    done
    if command -v kubeconform >/dev/null; then kubeconform -strict -summary <<<"$out"; fi
    echo "$folder: $(grep -c '^kind:' <<<"$out") objects"
  done
else
  echo "left out: the Kubernetes manifests (no kustomize, no recent kubectl)"
fi

if command -v buf >/dev/null; then
  (cd proto && buf lint) && echo "buf lint: clean"
else
  echo "left out: buf lint (no buf)"
fi
