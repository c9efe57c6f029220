#!/usr/bin/env bash
# TPU VMs and pods from creation to deletion, by gcloud; docs/tpu.md tells the whole story.
set -euo pipefail

usage() {
  cat <<'TEXT'
usage: launch/tpu_vm.sh create  --name=NAME --zone=ZONE --type=TYPE [--spot | --flex=HOURS]
                                [--within=HOURS] [--every=SECONDS] [--version=RUNTIME]
       launch/tpu_vm.sh install --name=NAME --zone=ZONE
       launch/tpu_vm.sh run     --name=NAME --zone=ZONE -- python launch/train.py ...
       launch/tpu_vm.sh logs    --name=NAME --zone=ZONE [--worker=N]
       launch/tpu_vm.sh stop    --name=NAME --zone=ZONE [--kill]
       launch/tpu_vm.sh resume  --name=NAME --zone=ZONE --type=TYPE [--spot | --flex=HOURS]
                                [--every=SECONDS] -- python launch/train.py ...
       launch/tpu_vm.sh status  --name=NAME --zone=ZONE
       launch/tpu_vm.sh delete  --name=NAME --zone=ZONE

create   asks for the TPU VM and waits in the queue for it (after Ctrl-C the request stays there);
         TYPE is v4-8, v5e-8, v6e-8, v5e-256, ...; --spot is cheaper and may be taken away; --flex
         keeps it for so many hours; --within gives the request up after so many hours of waiting;
         --every says how often it looks (20)
install  copies the committed files of this checkout to all workers and installs them with jax[tpu]
run      starts the command on all workers at once and returns; a command that is running stays as it is
logs     streams the output of worker 0, or N, until Ctrl-C; the run goes on
stop     ends the run on all workers: it saves first. --kill does not wait, for a worker that hangs
resume   makes the VM again if it is gone, then runs the command again: a training goes on where it
         was saved. With --every it looks again every so many seconds, until the run has finished
status   prints the states of the request and of the VM
delete   deletes the request, the VM and all that is on its disks

always:  --project=PROJECT, --dry-run (prints the gcloud calls and runs none)
TEXT
}

fail() {
  echo "error: $* (see launch/tpu_vm.sh --help)" >&2
  exit 2
}

name='' zone='' type='' version='' worker=0 every=0 flex='' within='' dry='' command=''
signal=TERM look=20 scratch=''
common=() spot=() program=() preview=()

parse() {
  case ${1:-} in
    create | install | run | logs | stop | resume | status | delete) command=$1 ;;
    -h | --help) usage && exit 0 ;;
    '') fail 'no command: give create, install, run, logs, stop, resume, status or delete' ;;
    *) fail "no command '$1': there are create, install, run, logs, stop, resume, status, delete" ;;
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
      --flex=*) flex=${1#*=} ;;
      --within=*) within=${1#*=} ;;
      --kill) signal=KILL ;;
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
  ((!every)) || look=$every
  [[ $flex$within =~ ^[0-9]*$ ]] || fail "--flex=$flex --within=$within: give whole hours"
  [[ -z $flex || ${#spot[@]} = 0 ]] || fail '--spot and --flex are two ways to pay: give one'
  case $command in
    create | resume) [[ $type ]] || fail "$command needs --type=TYPE, as in v4-8" ;;
  esac
  case $command in
    run | resume) ((${#program[@]})) || fail "$command needs a command after --, as in -- python launch/train.py ..." ;;
  esac
  [[ $dry ]] || command -v gcloud >/dev/null || fail 'gcloud is not installed: https://cloud.google.com/sdk'
}

# tpu tpu-vm|queued-resources VERB ...: prints a call so that a shell can read it again, or makes it.
tpu() {
  local call=(gcloud ${preview[@]+"${preview[@]}"} compute tpus "$@" "${common[@]}")
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
  tpu tpu-vm ssh "$name" "--worker=$1" "--command=$2"
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
  local request=("--node-id=$name" "--accelerator-type=$accelerator" "--runtime-version=$runtime")
  request+=(${spot[@]+"${spot[@]}"})
  [[ -z $within ]] || request+=("--valid-until-duration=${within}h")
  if [[ $flex ]]; then # only the preview of gcloud has it
    preview=(alpha)
    request+=(--provisioning-model=flex-start "--max-run-duration=${flex}h")
  fi
  tpu queued-resources create "$name" "${request[@]}" --async
  preview=()
  wait_in_queue
}

wait_in_queue() {
  local last='' now
  while true; do
    now=$(request_state)
    [[ $dry ]] && echo "$now" && return
    [[ $now = "$last" ]] || echo "$name is ${now:-on its way to the queue}"
    last=$now
    case $now in
      ACTIVE) return ;;
      FAILED | SUSPENDED) echo "error: the request has ended $now; launch/tpu_vm.sh delete clears it" >&2 && return 1 ;;
    esac
    sleep "$look"
  done
}

# Of the request: WAITING_FOR_RESOURCES, PROVISIONING, ACTIVE, FAILED, SUSPENDED, ...; nothing if there is none.
request_state() {
  tpu queued-resources describe "$name" '--format=value(state.state)' 2>/dev/null || true
}

install() {
  local archive root
  root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
  [[ $scratch ]] || scratch=$(mktemp -d)
  archive=$scratch/jaxseg.tar.gz
  [[ -e $root/.git ]] || fail 'install needs a git checkout: clone the repository'
  [[ $dry ]] || git -C "$root" archive --format=tar.gz --prefix=jaxseg/ -o "$archive" HEAD
  # A VM that has just become ready may refuse its first connections.
  again_if_it_fails tpu tpu-vm scp "$archive" "$name:jaxseg.tar.gz" --worker=all
  # The images bring Python 3.10; uv fetches a newer one.
  on_workers all "$(join_words ' && ' \
    'tar -xzf jaxseg.tar.gz' \
    'python3 -m pip install -q --user uv' \
    '(test -x jaxseg-venv/bin/python || python3 -m uv venv -q --python 3.12 jaxseg-venv)' \
    "python3 -m uv pip install -q --python jaxseg-venv/bin/python -e './jaxseg[tpu,gcs]'" \
    'touch jaxseg.installed')"
}

again_if_it_fails() {
  local attempt
  for attempt in 1 2 3; do
    "$@" && return
    ((attempt == 3)) || { echo "failed; again in $look seconds" >&2 && sleep "$look"; }
  done
  return 1
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

# setsid made the run's process the first of its group: its number names all of them.
stop() {
  # shellcheck disable=SC2016 # the worker's own file
  on_workers all 'kill -'"$signal"' -- -$(cat jaxseg/run.pid)'
}

status() {
  local request
  request=$(request_state)
  [[ $dry ]] && echo "$request" && node_state && return
  echo "request: ${request:-none}, VM: $(node_state)"
}

delete() {
  tpu queued-resources delete "$name" --force --quiet
}

node_state() {
  tpu tpu-vm describe "$name" '--format=value(state)' 2>/dev/null || echo none
}

resume_once() {
  local request
  request=$(request_state)
  if [[ $dry ]]; then
    echo "$request" && delete && create && install && run
    return
  fi
  case $request in
    ACTIVE) resume_active ;;
    '') echo "$name is not there: it is made" && create && install && run ;;
    FAILED | SUSPENDED) make_again "$request" ;;
    *) echo "$name is $request: not ready yet" && return 1 ;;
  esac
}

resume_active() {
  local node
  node=$(node_state)
  case $node in
    READY) { on_workers all 'test -e jaxseg.installed' || install; } && run ;;
    CREATING | STARTING | RESTARTING | REPAIRING) echo "$name is $node: not ready yet" && return 1 ;;
    *) make_again "$node" ;;
  esac
}

make_again() {
  echo "$name is $1: it is made again" && delete && create && install && run
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
trap '[[ ! $scratch ]] || rm -rf "$scratch"' EXIT
"$command"
