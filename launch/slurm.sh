#!/usr/bin/env bash
#SBATCH --job-name=jaxseg
#SBATCH --nodes=1
#SBATCH --gpus-per-node=4
#SBATCH --ntasks-per-node=4
#SBATCH --cpus-per-task=8
#SBATCH --time=24:00:00
#SBATCH --requeue
#SBATCH --signal=B:USR1@180
#SBATCH --open-mode=append
#SBATCH --output=%x-%j.log
#
# A training on Slurm, one process a GPU; JAX finds the others by itself. From the checkout, with the
# environment active:
#
#   sbatch [--nodes=2 ...] launch/slurm.sh --config=configs/NAME.py --workdir=SHARED/FOLDER [...]
#
# sbatch's own flags, given before the script, replace those above; keep --ntasks-per-node equal to
# --gpus-per-node (not --gpus-per-task: every process must see the node's GPUs to take its own).
# Preempted or three minutes before the time is up, the training saves at one step on all hosts; the
# job is queued again, and goes on there. scancel saves too, and ends it.
set -euo pipefail

(($#)) || {
  echo 'error: give the flags of launch/train.py: sbatch launch/slurm.sh --config=... --workdir=...' >&2
  exit 2
}
cd "${SLURM_SUBMIT_DIR:-.}"

again=''
# Before the step begins, so that no signal finds them missing; $! is the step once there is one.
trap 'kill -TERM "${!:-}" 2>/dev/null || true' TERM
trap 'again=yes; kill -TERM "${!:-}" 2>/dev/null || true' USR1
srun --kill-on-bad-exit=1 python launch/train.py "$@" &
step=$!

status=0
wait "$step" || status=$?
while kill -0 "$step" 2>/dev/null; do # a signal ends a wait, not the step
  status=0
  wait "$step" || status=$?
done

if [[ $again ]]; then
  scontrol requeue "$SLURM_JOB_ID"
fi
exit "$status"
