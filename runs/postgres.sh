#!/usr/bin/env bash
# A private PostgreSQL for the tests, on a socket in its own folder; "stop" removes it:
#   export GLOMERULAB_POSTGRES_URL=$(bash runs/postgres.sh start); ...; bash runs/postgres.sh stop
# Installs Debian's postgresql if it is missing and permissions allow it.
set -euo pipefail
folder="${GLOMERULAB_POSTGRES_FOLDER:-${TMPDIR:-/tmp}/glomerulab-postgres-$(id -u)}"

programs() { ls -d /usr/lib/postgresql/*/bin 2>/dev/null | sort -V | tail -1; }
# The server refuses to run as root.
as_server() { if [ "$(id -u)" -eq 0 ]; then (cd / && runuser -u postgres -- "$@"); else "$@"; fi; }

case "${1:-start}" in
  start)
    if [ -z "$(programs)" ]; then
      as_root=(); if [ "$(id -u)" -ne 0 ]; then as_root=(sudo); fi
      {
        "${as_root[@]}" apt-get update -qq
        # Without the default cluster: nothing may run outside the folder.
        "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq \
          --no-install-recommends -o Dpkg::Options::=--force-confold postgresql
      } >&2
    fi
    bin=$(programs)
    if [ ! -f "$folder/data/PG_VERSION" ]; then
      mkdir -p "$folder"
      if [ "$(id -u)" -eq 0 ]; then chown postgres "$folder"; fi
      chmod 755 "$folder"
      as_server "$bin/initdb" -D "$folder/data" -U glomerulab -A trust -E UTF8 --locale=C.UTF-8 >&2
    fi
    if ! as_server "$bin/pg_ctl" -D "$folder/data" status >/dev/null; then
      # Only the socket, no port; durable writes, as in production.
      as_server "$bin/pg_ctl" -D "$folder/data" -l "$folder/log" -w \
        -o "-c listen_addresses='' -c unix_socket_directories='$folder'" \
        start >&2
    fi
    echo "postgresql://glomerulab@/postgres?host=$folder"
    ;;
  stop)
    as_server "$(programs)/pg_ctl" -D "$folder/data" -m fast stop >&2
    rm -rf "$folder"
    ;;
  *)
    echo "usage: runs/postgres.sh start|stop" >&2
    exit 2
    ;;
esac
