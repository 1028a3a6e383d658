#!/usr/bin/env bash
# Sends a base item, a user, an item and a transfer to ingest-api, then many items in one upload.
# Usage: bash producer.sh http://127.0.0.1:8080 (bash 5, curl 7.71 or newer)
set -euo pipefail
url=$1
work=$(mktemp -d)
trap 'rm -r "$work"' EXIT

# A UUIDv7 (RFC 9562): milliseconds since 1970, the version, and random bits around the variant.
new_id() {
    local time random variant
    time=$(printf '%012x' "$((${EPOCHREALTIME/[.,]/} / 1000))")
    random=$(od -An -N10 -tx1 /dev/urandom | tr -d ' \n')
    variant=$(printf '%x' $((8 + 0x${random:3:1} % 4)))
    echo "${time:0:8}-${time:8:4}-7${random:0:3}-$variant${random:4:3}-${random:7:12}"
}

# Posts standard input, and retries while there is no answer, or a 408, 429 or 5xx: curl waits as
# Retry-After says, or 1, 2, 4 … seconds. The body and its ids stay the same, so retrying is
# harmless. The status goes to $status, the answer to the file "answer".
post() {
    cat > "$work/body"
    for wait in 1 2 4 8 16; do
        status=$(curl --silent --show-error --max-time 30 --retry 8 --retry-all-errors \
            --header "content-type: $2" --upload-file "$work/body" --request POST \
            --output "$work/answer" --write-out '%{http_code}' "$url$1")
        [[ $status == 425 ]] || return 0 # which curl does not repeat
        sleep "$wait"
    done
}

# Posts one row. 201: stored; 200: it was stored before.
create() {
    post "$1" application/json <<< "$2"
    if [[ $status != 20[01] ]]; then
        echo "POST $1 was answered $status: $(< "$work/answer")" >&2
        exit 1
    fi
}

base_item=$(new_id) user=$(new_id) item=$(new_id) transfer=$(new_id)
create /base-items "{\"id\":\"$base_item\",\"description\":\"Touring bicycle, refurbished\"}"
create /users "{\"id\":\"$user\"}"
now=$(date -u +%FT%TZ)
create /items "{\"id\":\"$item\",\"base_item_id\":\"$base_item\",\"created_at\":\"$now\"}"
create /transfers "{\"id\":\"$transfer\",\"item_id\":\"$item\",\"owner_id\":\"$user\"}"
printf '%s\n' "base item $base_item" "user $user" "item $item" "transfer $transfer"

# The second line names a base item that does not exist: it is rejected, the others are stored.
post /items application/x-ndjson << EOF
{"id":"$(new_id)","base_item_id":"$base_item"}
{"id":"$(new_id)","base_item_id":"$(new_id)"}
{"id":"$(new_id)","base_item_id":"$base_item"}
EOF
case $status in
    200) echo "all lines are stored" ;;
    422) echo "rejected lines, for a person to look at: $(grep -o '"errors":.*' "$work/answer")" ;;
    *) echo "the upload was answered $status: $(< "$work/answer")" >&2 && exit 1 ;;
esac
