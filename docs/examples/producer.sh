#!/usr/bin/env bash
# Sends a base item, a user, an item and a transfer to ingest-api, then many items in one upload.
# Usage: NEWCYCLE_KEY=… bash producer.sh http://127.0.0.1:8080 (bash 5, curl)
set -euo pipefail
url=$1
# A folder that only its owner can read. Other users can see the arguments of curl, so the key is in
# a file.
work=$(mktemp -d)
trap 'rm -r "$work"' EXIT
printf 'authorization: Bearer %s\n' "$NEWCYCLE_KEY" > "$work/key"

# A UUIDv7 (RFC 9562): milliseconds since 1970, the version, and random bits around the variant.
new_id() {
    local time random variant
    time=$(printf '%012x' "$((${EPOCHREALTIME/[.,]/} / 1000))")
    random=$(od -An -N10 -tx1 /dev/urandom | tr -d ' \n')
    variant=$(printf '%x' $((8 + 0x${random:3:1} % 4)))
    echo "${time:0:8}-${time:8:4}-7${random:0:3}-$variant${random:4:3}-${random:7:12}"
}

# Posts standard input, and retries while there is no answer, or a 408, 425, 429 or 5xx. The body
# and its ids stay the same, so retrying is harmless. A 200 or 201 counts only if the answer has the
# member $3, which ingest-api sends: a proxy may answer something else. The status goes to $status,
# the answer to the file "answer". curl follows no redirect, so a 3xx is final.
post() {
    local asked pause wait=250 give_up=$((SECONDS + 300))
    cat > "$work/body"
    while true; do
        : > "$work/answer" > "$work/headers"
        status=$(curl --silent --show-error --max-time "${TIMEOUT_SECONDS:-30}" \
            --header "@$work/key" --header "content-type: $2" --data-binary "@$work/body" \
            --dump-header "$work/headers" --output "$work/answer" \
            --write-out '%{http_code}' "$url$1") || status=none
        case $status in
            2??) if grep -aq "^{.*\"$3\":" "$work/answer"; then return; fi ;;
            none | 408 | 425 | 429 | 5??) ;;
            *) return ;;
        esac
        # The time in Retry-After, and a random part of a wait that doubles, in milliseconds:
        # producers that lost the service at the same moment must not all return at once.
        asked=$(sed -nE 's/^retry-after: *([0-9]+)[[:space:]]*$/\1/Ip' "$work/headers" | tail -n 1)
        # Shell arithmetic would overflow.
        if ((${#asked} > 9)); then asked=999999999; fi
        pause=$((10#0$asked * 1000 + wait / 2 + RANDOM % (wait / 2)))
        if ((SECONDS + pause / 1000 > give_up)); then
            echo "POST $1: gave up. The last status was: $status" >&2
            exit 1
        fi
        sleep "$((pause / 1000)).$(printf '%03d' $((pause % 1000)))"
        wait=$((wait < 7500 ? wait * 2 : 15000))
    done
}

# Posts one row. 201: stored; 200: it was stored before.
create() {
    post "$1" application/json id <<< "$2"
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
post /items application/x-ndjson accepted << EOF
{"id":"$(new_id)","base_item_id":"$base_item"}
{"id":"$(new_id)","base_item_id":"$(new_id)"}
{"id":"$(new_id)","base_item_id":"$base_item"}
EOF
if [[ $status == 200 ]]; then
    echo "all lines are stored"
elif [[ $status == 422 ]] && errors=$(grep -o '"accepted":.*"errors":.*' "$work/answer"); then
    echo "rejected lines, for a person to look at: $errors"
else
    echo "the upload was answered $status: $(< "$work/answer")" >&2
    exit 1
fi
