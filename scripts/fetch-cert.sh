#!/usr/bin/env bash
# For edge servers: keeps a certificate and its key up to date on disk, and reloads only when they changed.
#
#   SCAIVAULT_URL     where the service is
#   SCAIVAULT_TOKEN   or SCAIVAULT_TOKEN_FILE; scopes pki:read pki:export, best limited to this one certificate
#   CERT_ID           cert_…
#   CERT_DIR          folder for fullchain.pem and privkey.pem
#   RELOAD            command to run after a change (optional), for example "systemctl reload nginx"; one that failed is
#                     run again by the next call
#
# Both files are of one version: the key is asked for by the version of the chain. A folder for the version is filled first
# and then takes the place of `current` in one step; fullchain.pem and privkey.pem point into it, so no reader ever meets a
# chain with another version's key. Exit code 0: up to date, whether or not anything changed.
# Needs curl, jq, flock (util-linux) and GNU's `mv -T` (coreutils).
set -euo pipefail
umask 077
: "${SCAIVAULT_URL:?}" "${CERT_ID:?}" "${CERT_DIR:?}"
token=${SCAIVAULT_TOKEN:-$(cat "${SCAIVAULT_TOKEN_FILE:?set SCAIVAULT_TOKEN or SCAIVAULT_TOKEN_FILE}")}

mkdir -p "$CERT_DIR"
exec 9>"$CERT_DIR/.lock"
flock 9
work=$(mktemp -d "$CERT_DIR/.fetch.XXXXXX")
trap 'rm -rf "$work"' EXIT

# The token goes to curl by a file that only we can read: an argument would show in the list of processes.
printf 'header = "Authorization: Bearer %s"\n' "$token" > "$work/curl"
call() { curl --silent --show-error --fail --max-time 30 --retry 3 --config "$work/curl" "$@"; }
certificate="$SCAIVAULT_URL/v1/pki/certificates/$CERT_ID"

call "$certificate/pem" > "$work/pem.json"
version=$(jq -er .version "$work/pem.json")
fingerprint=$(jq -er .fingerprint_sha256 "$work/pem.json")
name="v$version-${fingerprint:0:16}"
previous=$(readlink "$CERT_DIR/current" 2>/dev/null || true)
if [ "$previous" != "$name" ]; then
  fresh="$work/$name"
  mkdir "$fresh"
  jq -er .certificate_pem "$work/pem.json" > "$fresh/fullchain.pem"
  call -X POST -H "Content-Type: application/json" -d "{\"version\": $version}" "$certificate/private-key" \
    | jq -er .private_key_pem > "$fresh/privkey.pem"
  rm -rf "${CERT_DIR:?}/$name"
  mv "$fresh" "$CERT_DIR/$name"
  ln -s "$name" "$work/current"
  mv -T "$work/current" "$CERT_DIR/current"
  for old in "$CERT_DIR"/v*-*; do
    case "${old##*/}" in "$name" | "$previous") ;; *) rm -rf "$old" ;; esac
  done
fi
for file in fullchain.pem privkey.pem; do
  [ -L "$CERT_DIR/$file" ] || { ln -s "current/$file" "$work/$file"; mv -T "$work/$file" "$CERT_DIR/$file"; }
done

# `.reloaded` names the version that RELOAD last succeeded with. What RELOAD starts must not keep our lock.
if [ -n "${RELOAD:-}" ] && [ "$(cat "$CERT_DIR/.reloaded" 2>/dev/null || true)" != "$name" ]; then
  bash -c "$RELOAD" 9>&-
  echo "$name" > "$CERT_DIR/.reloaded"
fi
