#!/bin/sh
# Makes the secrets of the containers once. Usage: sh secrets.sh FOLDER [rotate]
#
# FOLDER/all has every secret, and each other folder is a volume of one program, with nothing but
# what this program needs. Prometheus and Grafana get theirs if they have a folder. A secret of the
# environment replaces the one that was made. Prints nothing.
#
# `rotate` replaces the secret of the internal ports while the services run. They read their files
# every two seconds, and each must know the new secret before another one sends it.
set -eu
umask 077
cd "$1"

# Writes standard input to a file, which is complete at every moment and belongs to a user.
store() {
    rm -f "$1.next"
    cat > "$1.next"
    # Only root can give files away.
    if [ "$(id -u)" = 0 ]; then chown "$2" "$1.next"; fi
    mv -f "$1.next" "$1"
}

random() {
    od -An -v -N32 -tx1 /dev/urandom | tr -d ' \n'
}

# Makes a password: the given one, else the one that was made before, else a random one.
password() {
    if [ -n "$2" ]; then
        printf '%s' "$2" | store "all/$1" 0:0
    elif [ ! -s "all/$1" ]; then
        random | store "all/$1" 0:0
    fi
}

# A line of TOML with a password.
setting() {
    printf '%s = "%s"\n' "$1" "$(sed 's/[\\"]/\\&/g' "all/$2")"
}

password superuser "${PGPASSWORD:-}"
password ingest "${INGEST_DATABASE_PASSWORD:-}"
password notifier "${NOTIFIER_DATABASE_PASSWORD:-}"
password access "${ACCESS_DATABASE_PASSWORD:-}"
password internal ""

# The users of the images.
user=65532:65532
prometheus_user=65534:65534
grafana_user=472:0
store postgres/password 0:0 < all/superuser
{
    echo '[database]'
    setting password superuser
    echo '[roles]'
    setting ingest_password ingest
    setting notifier_password notifier
    setting access_password access
} | store migrate/migrate.toml "$user"
{ echo '[database]'; setting password ingest; } | store ingest-api/ingest-api.toml "$user"
{ echo '[database]'; setting password notifier; } | store stats-notifier/stats-notifier.toml "$user"
{ echo '[database]'; setting password access; } | store access/access.toml "$user"
if [ -d grafana ]; then
    password grafana "${GRAFANA_PASSWORD:-}"
    store grafana/admin-password "$grafana_user" < all/grafana
fi

give_internal() {
    for service in ingest-api stats-notifier sse-gateway dashboard; do
        store "$service/internal-secret" "$user" < all/internal
    done
    # Prometheus sends the whole file. The first secret is the one that services send, too.
    if [ -d prometheus ]; then
        head -n 1 all/internal | store prometheus/internal-secret "$prometheus_user"
    fi
}

give_internal
if [ "${2:-}" = rotate ]; then
    old=$(cat all/internal)
    new=$(random)
    for secrets in "$old
$new" "$new
$old" "$new"; do
        printf '%s\n' "$secrets" | store all/internal 0:0
        give_internal
        sleep 5
    done
fi
