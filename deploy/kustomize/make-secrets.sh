#!/usr/bin/env bash
# Prints the Secrets that Easel's manifests name, with fresh passwords and one API key:
#   deploy/kustomize/make-secrets.sh [--certificates] | kubectl apply -f -
# --certificates: the stores' certificates too, by openssl, for clusters without cert-manager.
# The API key is shown on standard error, once. Running it again changes every password; then restart all pods.
set -euo pipefail

namespace=${NAMESPACE:-easel}

secret() { # name, then arguments of kubectl create secret generic
    local name=$1
    shift
    echo "---"
    kubectl create secret generic "$name" --namespace "$namespace" --dry-run=client --output yaml "$@"
}

user() { # name, password, what it may do
    printf 'user default reset off\nuser %s on #%s %s\n' "$1" "$(printf '%s' "$2" | sha256sum | cut -d' ' -f1)" "$3"
}

password() { openssl rand -hex 32; }

# What cluster/journal.py says that the journal needs.
journal_rights='~easel:* resetchannels -@all +evalsha +script|load +ping +client|setinfo +time +hget +hmget +hset
    +hsetnx +hdel +hexists +hgetall +pexpire +pttl +zadd +zrem +zrangebyscore'
# What Ray 2.60's GCS was seen to ask for; its keys begin with RAY and the cluster's namespace.
gcs_rights='~RAY* ~DUMMY resetchannels -@all +ping +info +hset +hsetnx +hget +hmget +hdel +hexists +hscan +hincrby
    +incrby +del +unlink +scan'

journal=$(password) gcs=$(password) key=easel-$(openssl rand -hex 24)
secret easel-journal-client --from-literal=url="rediss://easel:$journal@easel-journal:6380/0"
secret easel-journal-users --from-literal=users.acl="$(user easel "$journal" "$(echo $journal_rights)")"
secret easel-gcs-client --from-literal=password="$gcs"
secret easel-gcs-users --from-literal=users.acl="$(user ray "$gcs" "$(echo $gcs_rights)")"
secret easel-api-keys --from-literal=keys="$key"
echo "API key: $key" >&2

[[ ${1:-} == --certificates ]] || exit 0
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
new_key() { openssl ecparam -name prime256v1 -genkey -noout -out "$1"; }
new_key "$folder/ca.key"
openssl req -x509 -new -key "$folder/ca.key" -days 3650 -subj /CN=easel-authority -out "$folder/ca.crt"
for store in easel-journal easel-gcs; do
    new_key "$folder/$store.key"
    openssl req -new -key "$folder/$store.key" -subj "/CN=$store" -out "$folder/$store.csr"
    openssl x509 -req -in "$folder/$store.csr" -CA "$folder/ca.crt" -CAkey "$folder/ca.key" -CAcreateserial -days 365 \
        -extfile <(echo "subjectAltName=DNS:$store,DNS:$store.$namespace.svc,DNS:$store.$namespace.svc.cluster.local") \
        -out "$folder/$store.crt" 2>/dev/null
    secret "$store-tls" --from-file=ca.crt="$folder/ca.crt" \
        --from-file=tls.crt="$folder/$store.crt" --from-file=tls.key="$folder/$store.key"
done
