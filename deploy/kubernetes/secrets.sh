#!/bin/sh
# Prints the Secrets that the manifests need. Usage:
# sh secrets.sh FOLDER | kubectl apply --server-side -f -
#
# ../secrets.sh makes them once, in FOLDER, which nobody else should be able to read. With the same
# FOLDER, the same ones are printed again.
set -eu
umask 077
programs="migrate access ingest-api stats-notifier sse-gateway dashboard"
for name in all postgres $programs; do mkdir -p "$1/$name"; done
sh "$(dirname "$0")/../secrets.sh" "$1"

secret() {
    echo ---
    kubectl create secret generic --namespace newcycle --dry-run=client --output yaml "$@"
}

for program in $programs; do
    secret "$program" --from-file="$1/$program"
done
# The role with which `migrate` connects. CloudNativePG creates it.
secret postgres-migrator --type=kubernetes.io/basic-auth \
    --from-literal=username=migrator --from-file=password="$1/all/superuser"
