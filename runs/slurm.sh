#!/usr/bin/env bash
# A private Slurm of one node for the tests, in its own folder; "stop" removes it:
#   export SLURM_CONF=$(bash runs/slurm.sh start); ...; bash runs/slurm.sh stop
# Runs as root. Installs Debian's slurm-wlm and munge if they are missing.
set -euo pipefail
folder="${GLOMERULAB_SLURM_FOLDER:-${TMPDIR:-/tmp}/glomerulab-slurm}"
conf="$folder/slurm.conf"

start_munge() {
  mkdir -p "$folder/munge"
  chown munge "$folder/munge"
  chmod 711 "$folder/munge"
  if [ ! -f "$folder/munge/key" ]; then
    head -c 128 /dev/urandom >"$folder/munge/key"
    chown munge "$folder/munge/key"
    chmod 400 "$folder/munge/key"
  fi
  runuser -u munge -- /usr/sbin/munged --force --key-file="$folder/munge/key" \
    --socket="$folder/munge/socket" --pid-file="$folder/munge/pid" \
    --log-file="$folder/munge/log" --seed-file="$folder/munge/seed"
}

write_conf() {
  cat >"$conf" <<EOF
ClusterName=glomerulab
SlurmctldHost=$(hostname -s)(127.0.0.1)
SlurmctldPort=16817
SlurmdPort=16818
AuthType=auth/munge
AuthInfo=socket=$folder/munge/socket
CryptoType=crypto/munge
SlurmUser=root
StateSaveLocation=$folder/state
SlurmdSpoolDir=$folder/spool
SlurmctldPidFile=$folder/slurmctld.pid
SlurmdPidFile=$folder/slurmd.pid
SlurmctldLogFile=$folder/slurmctld.log
SlurmdLogFile=$folder/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
MpiDefault=none
ReturnToService=2
# More processors than the node may have, so that several small jobs run beside each other; memory is
# not booked.
SlurmdParameters=config_overrides
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SchedulerParameters=sched_interval=5
KillWait=5
NodeName=$(hostname -s) NodeAddr=127.0.0.1 CPUs=8 RealMemory=64000 State=UNKNOWN
PartitionName=long Nodes=ALL Default=YES MaxTime=INFINITE State=UP
EOF
}

case "${1:-start}" in
  start)
    if ! command -v slurmctld >/dev/null || ! command -v munged >/dev/null; then
      {
        apt-get update -qq
        DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends \
          slurm-wlm munge
      } >&2
    fi
    mkdir -p "$folder/state" "$folder/spool"
    write_conf
    export SLURM_CONF="$conf"
    pgrep -f "munged .*$folder" >/dev/null || start_munge >&2
    pgrep -f "slurmctld -f $conf" >/dev/null || slurmctld -f "$conf" >&2
    pgrep -f "slurmd -f $conf" >/dev/null || slurmd -f "$conf" >&2
    for _ in $(seq 60); do
      if sinfo --noheader --format=%t 2>/dev/null | grep -q "idle\|mix\|alloc"; then
        echo "$conf"
        exit 0
      fi
      sleep 1
    done
    echo "slurm.sh: the node did not come up" >&2
    tail -n 5 "$folder"/*.log >&2
    exit 1
    ;;
  stop)
    export SLURM_CONF="$conf"
    scancel --user="$(id -un)" 2>/dev/null || true
    for pid in "$folder"/slurmd.pid "$folder"/slurmctld.pid "$folder"/munge/pid; do
      if [ -f "$pid" ]; then kill "$(cat "$pid")" 2>/dev/null || true; fi
    done
    sleep 2
    rm -rf "$folder"
    ;;
  *)
    echo "usage: runs/slurm.sh start|stop" >&2
    exit 2
    ;;
esac
