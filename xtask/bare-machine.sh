#!/usr/bin/env bash
# Runs the README's commands on a minimal Debian that has a Rust toolchain and a C compiler, and
# nothing else. It shows that the commands do all their set-up themselves.
#
#     sudo xtask/bare-machine.sh [FOLDER]
#
# Needs root, debootstrap and about 10 GB. FOLDER gets the machine and must not exist; it is deleted
# at the end, unless KEEP is set. The commit at HEAD is tested. Variables of .env.example, such as
# INGEST_PORT, apply: the machine shares this one's network. CARGO_HOME and RUSTUP_HOME name the
# toolchain, if it is not in the home folder.
set -euo pipefail

folder=$(realpath --canonicalize-missing "${1:-/var/tmp/newcycle-bare-machine}")
checkout=$(realpath "$(dirname "$0")/..")
[ ! -e "$folder" ] || { echo "$folder exists: delete it, or name another folder" >&2; exit 1; }
cargo_home=${CARGO_HOME:-$HOME/.cargo}
rustup_home=${RUSTUP_HOME:-$HOME/.rustup}

clean_up() {
    # The mounts are in a namespace of their own, so nothing of this machine is below the folder.
    if [ -z "${KEEP:-}" ]; then rm -rf "$folder"; fi
}
trap clean_up EXIT

echo "== making a minimal Debian in $folder"
release=$(. /etc/os-release && echo "$VERSION_CODENAME")
# From this machine's own sources.
mirror=$(apt-get indextargets --format '$(REPO_URI)' "Created-By: Packages" "Codename: $release" | head -1)
debootstrap --variant=minbase --include=ca-certificates,gcc,libc6-dev "$release" "$folder" "$mirror"
for file in /etc/resolv.conf /etc/ssl/certs/ca-certificates.crt; do
    cp --dereference "$file" "$folder$file"
done
mkdir -p "$folder/srv/home/.cargo/bin" "$folder/srv/home/.rustup" "$folder/srv/newcycle"
git -C "$checkout" archive HEAD | tar -x -C "$folder/srv/newcycle"

cat >"$folder/srv/run" <<'SCRIPT'
#!/bin/bash
set -euo pipefail
cd /srv/newcycle
seconds() {
    local from=$SECONDS
    "$@"
    echo "== $*: $((SECONDS - from)) s"
}
seconds cargo xtask up --detach
cargo xtask status
cargo xtask down
seconds cargo xtask test
echo "== installed meanwhile: $(comm -13 /srv/before <(dpkg-query -W -f '${Package}\n' | sort) | xargs)"
SCRIPT
chmod +x "$folder/srv/run"
chroot "$folder" dpkg-query -W -f '${Package}\n' | sort >"$folder/srv/before"

# Only what the commands may see is passed on: certificates and ports.
variables=(PATH=/srv/home/.cargo/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/srv/home LANG=C.UTF-8 CI=true)
while IFS= read -r variable; do variables+=("$variable"); done < <(
    env | grep -E '^(PIP_CERT|SSL_CERT_FILE|NODE_EXTRA_CA_CERTS|RUSTUP_AUTO_INSTALL|[A-Z_]*PORT)=' || true
)
export folder cargo_home rustup_home
unshare --mount --pid --fork --mount-proc bash -euc '
    mount --bind "$cargo_home/bin" "$folder/srv/home/.cargo/bin"
    mount --bind "$rustup_home" "$folder/srv/home/.rustup"
    mount -t proc proc "$folder/proc"
    mount -t sysfs sysfs "$folder/sys"
    mount --rbind /dev "$folder/dev"
    exec chroot "$folder" env -i "$@" /srv/run
' bash "${variables[@]}"
