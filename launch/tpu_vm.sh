#!/usr/bin/env bash
# TPU VMs and pods from creation to deletion, by gcloud; docs/tpu.md tells the whole story.
set -euo pipefail

usage() {
  cat <<'TEXT'
usage: launch/tpu_vm.sh create  --name=NAME --zone=ZONE --type=TYPE [--spot] [--version=RUNTIME]
       launch/tpu_vm.sh install --name=NAME --zone=ZONE
       launch/tpu_vm.sh run     --name=NAME --zone=ZONE -- python launch/train.py ...
       launch/tpu_vm.sh logs    --name=NAME --zone=ZONE [--worker=N]
       launch/tpu_vm.sh resume  --name=NAME --zone=ZONE --type=TYPE [--spot] [--every=SECONDS]
                                -- python launch/train.py ...
       launch/tpu_vm.sh delete  --name=NAME --zone=ZONE

create   makes the TPU VM; TYPE is v4-8, v5e-8, v6e-8, v5e-256, ...; --spot is cheaper, may be taken away
install  copies the committed files of this checkout to all workers and installs them with jax[tpu]
run      starts the command on all workers at once and returns; a command that is running stays as it is
logs     streams the output of worker 0, or N, until Ctrl-C; the run goes on
resume   makes the VM again if it is gone, then runs the command again: a training goes on where it
         was saved. With --every it looks again every so many seconds, until the run has finished
delete   deletes the VM and all that is on its disks

always:  --project=PROJECT, --dry-run (prints the gcloud calls and runs none)
TEXT
}

fail() {
  echo "error: $* (see launch/tpu_vm.sh --help)" >&2
  exit 2
}

name='' zone='' type='' version='' worker=0 every=0 dry='' command=''
common=() spot=() program=()

parse() {
  case ${1:-} in
    create | install | run | logs | resume | delete) command=$1 ;;
    -h | --help) usage && exit 0 ;;
    '') fail 'no command: give create, install, run, logs, resume or delete' ;;
    *) fail "no command '$1': there are create, install, run, logs, resume, delete" ;;
  esac
  shift
  while (($#)); do
    case $1 in
      --name=*) name=${1#*=} ;;
      --zone=*) zone=${1#*=} ;;
      --type=*) type=${1#*=} ;;
      --version=*) version=${1#*=} ;;
      --worker=*) worker=${1#*=} ;;
      --every=*) every=${1#*=} ;;
      --project=*) common+=("$1") ;;
      --spot) spot=(--spot) ;;
      --dry-run) dry=yes ;;
      -h | --help) usage && exit 0 ;;
      --) shift && program=("$@") && break ;;
      *) fail "no flag '$1'; the run's own command goes after --" ;;
    esac
    shift
  done
  common+=("--zone=$zone")
}

check() {
  [[ $name ]] || fail "$command needs --name=NAME"
  [[ $zone ]] || fail "$command needs --zone=ZONE, as in us-central2-b"
  [[ $every =~ ^[0-9]+$ ]] || fail "--every=$every: give whole seconds"
  case $command in
    create | resume) [[ $type ]] || fail "$command needs --type=TYPE, as in v4-8" ;;
  esac
  case $command in
    run | resume) ((${#program[@]})) || fail "$command needs a command after --, as in -- python launch/train.py ..." ;;
  esac
  [[ $dry ]] || command -v gcloud >/dev/null || fail 'gcloud is not installed: https://cloud.google.com/sdk'
}

# Prints a call so that a shell can read it again, or makes it.
tpu() {
  local call=(gcloud compute tpus tpu-vm "$@" "${common[@]}")
  if [[ $dry ]]; then
    quoted "${call[@]}"
    echo
  else
    "${call[@]}"
  fi
}

# Prints words as a shell reads them again, in single quotes where they need some.
quoted() {
  local word gap=''
  for word in "$@"; do
    printf '%s' "$gap"
    case $word in
      '' | *[!A-Za-z0-9_./:=,@%+-]*) printf "'%s'" "$(printf '%s' "$word" | sed "s/'/'\\\\''/g")" ;;
      *) printf '%s' "$word" ;;
    esac
    gap=' '
  done
}

on_workers() { # on_workers all|N COMMAND
  tpu ssh "$name" "--worker=$1" "--command=$2"
}

create() {
  local accelerator=${type/#v5e-/v5litepod-} runtime=$version
  if [[ -z $runtime ]]; then
    case $accelerator in
      v2-* | v3-* | v4-*) runtime=tpu-ubuntu2204-base ;;
      v5litepod-*) runtime=v2-alpha-tpuv5-lite ;;
      v5p-*) runtime=v2-alpha-tpuv5 ;;
      v6e-*) runtime=v2-alpha-tpuv6e ;;
      *) fail "--type=$type is not known here: give its --version=RUNTIME too" ;;
    esac
  fi
  tpu create "$name" "--accelerator-type=$accelerator" "--version=$runtime" ${spot[@]+"${spot[@]}"}
}

install() {
  local archive root
  root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
  archive=${TMPDIR:-/tmp}/jaxseg.tar.gz
  [[ -e $root/.git ]] || fail 'install needs a git checkout: clone the repository'
  [[ $dry ]] || git -C "$root" archive --format=tar.gz --prefix=jaxseg/ -o "$archive" HEAD
  tpu scp "$archive" "$name:jaxseg.tar.gz" --worker=all
  # The images bring Python 3.10; uv fetches a newer one.
  on_workers all "$(join_words ' && ' \
    'tar -xzf jaxseg.tar.gz' \
    'python3 -m pip install -q --user uv' \
    '(test -x jaxseg-venv/bin/python || python3 -m uv venv -q --python 3.12 jaxseg-venv)' \
    "python3 -m uv pip install -q --python jaxseg-venv/bin/python -e './jaxseg[tpu,gcs]'")"
}

join_words() { # join_words SEPARATOR WORD...
  local separator=$1 joined=$2 word
  for word in "${@:3}"; do joined+=$separator$word; done
  printf '%s' "$joined"
}

run() {
  local words inner
  words=$(quoted "${program[@]}")
  # shellcheck disable=SC2016 # the variables are the worker's
  inner='PATH=$HOME/jaxseg-venv/bin:$PATH; '"$words"'; echo $? > run.status'
  # shellcheck disable=SC2016
  on_workers all "cd jaxseg && $(join_words '; ' \
    'if test -f run.pid && kill -0 $(cat run.pid) 2> /dev/null' \
    'then echo "it is running already"' \
    'else rm -f run.status' \
    "nohup setsid bash -c $(quoted "$inner") >> run.log 2>&1 < /dev/null & echo \$! > run.pid" \
    'fi')"
}

logs() {
  on_workers "$worker" 'tail -n 100 -F jaxseg/run.log'
}

delete() {
  tpu delete "$name" --quiet
}

state() {
  tpu describe "$name" '--format=value(state)' 2>/dev/null || true
}

resume_once() {
  local found
  found=$(state)
  if [[ $dry ]]; then
    echo "$found" && delete && create && install && run
    return
  fi
  case $found in
    READY) ;;
    CREATING | STARTING | RESTARTING | REPAIRING) echo "$name is $found: not ready yet" && return 1 ;;
    '') echo "$name is not there: it is made" && again ;;
    *) echo "$name is $found: it is made again" && delete && again ;;
  esac && run
}

again() {
  create && install
}

resume() {
  if ((!every)) || [[ $dry ]]; then
    resume_once
    return
  fi
  local status
  while true; do
    resume_once || echo "not yet; the next look is in $every seconds"
    sleep "$every"
    status=$(on_workers 0 'cat jaxseg/run.status' 2>/dev/null || true)
    case $status in
      0) echo 'the run has finished' && return ;;
      2) echo 'error: the run ended with a mistake that no restart mends: see launch/tpu_vm.sh logs' >&2 && return 1 ;;
    esac
  done
}

parse "$@"
check
"$command"
