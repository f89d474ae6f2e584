#!/usr/bin/env bash
# Train the default model on a GPU machine that is lent for minutes and keeps nothing: one part of nine minutes a call.
#
#     python recipes/pack_corpus.py corpora/score -o score.tar.xz --megabytes 6     # once, on a machine with the corpus
#     recipes/flagship_gpu.sh score.tar.xz checkpoints-parts                        # again and again, until it says done
#     recipes/flagship_gpu.sh score.tar.xz checkpoints-parts --dry-run              # two steps of a tiny model on a CPU
#
# A call unpacks the corpus, joins the files of the run that the last call left in the second folder (which need not exist at
# first), continues the run for nine minutes, and splits the run into that folder again: files of at most 14,000,000 bytes with
# their SHA-256. The budget of all calls together is TOTAL_MINUTES; what is left of the last part ends by itself. The schedule of
# the learning rate is that of the total, since each part ends by SIGTERM, after which `musiclm train` saves.
#
# Nothing is installed. Where musiclm is not, it runs from this repository, and wheels in the folder WHEELS are unpacked beside
# it. Unmeasured: no GPU was at hand when this was written. The dry run is tested.
#
# Environment: PYTHON (python3), WORK (work/flagship-gpu: the same path in each call), WHEELS, START (score-transformer: the
# checkpoint to start from), TOTAL_MINUTES (90), PART_MINUTES (9), BATCH_SIZE (64), LEARNING_RATE (1e-3), SEED (21), PART_BYTES,
# TRAIN_OPTIONS (further options of the first `musiclm train`, for example "--compile --weight chorales=3").
set -euo pipefail

usage() { echo "usage: $0 CORPUS.tar.xz PARTS [--dry-run]" >&2; exit 2; }
[ $# -ge 2 ] && [ $# -le 3 ] || usage
[ "${3:---dry-run}" = --dry-run ] || usage
corpus=$1 parts=${2%/} dry_run=${3:-}
root=$(cd "$(dirname "$0")/.." && pwd)
python=${PYTHON:-python3} work=${WORK:-work/flagship-gpu} part_bytes=${PART_BYTES:-14000000}
run=$work/run
kept="run.json metrics.jsonl resume.safetensors best.safetensors"

# musiclm, without installing it: the packages of the repository in the places where they are imported from
find_musiclm() {
  if "$python" -c "import musiclm.cli" 2> /dev/null; then return; fi
  site=$work/site
  rm -rf "$site" && mkdir -p "$site"
  cp -r "$root/musiclm" "$site/musiclm"
  cp -r "$root/cli" "$site/musiclm/cli"
  cp -r "$root/checkpoints" "$site/musiclm/checkpoints"
  for wheel in "${WHEELS:-}"/*.whl; do
    if [ -e "$wheel" ]; then "$python" -m zipfile -e "$wheel" "$site"; fi
  done
  PYTHONPATH=$(cd "$site" && pwd)${PYTHONPATH:+:$PYTHONPATH}
  export PYTHONPATH
  "$python" -c "import musiclm.cli" || { echo "musiclm does not run here: put the wheels it needs into WHEELS" >&2; exit 1; }
}

# the files of the run, from what the last call left
join_parts() {
  rm -rf "$run" && mkdir -p "$run"
  (cd "$parts" && sha256sum --check --quiet SHA256SUMS) || { echo "the files in '$parts' are damaged" >&2; exit 1; }
  for name in $kept; do
    if [ -e "$parts/$name.000" ]; then cat "$parts/$name".[0-9][0-9][0-9] > "$run/$name"; fi
  done
}

# written beside the old files, and exchanged with them at the end: a call that is killed leaves the old ones
split_run() {
  new=$parts.new
  rm -rf "$new" "$parts.old" && mkdir -p "$new"
  for name in $kept; do
    if [ -e "$run/$name" ]; then split --bytes="$part_bytes" --numeric-suffixes --suffix-length=3 "$run/$name" "$new/$name."; fi
  done
  (cd "$new" && sha256sum -- *.[0-9][0-9][0-9] > SHA256SUMS)
  if [ -e "$parts" ]; then mv "$parts" "$parts.old"; fi
  mv "$new" "$parts"
  rm -rf "$parts.old"
}

steps_so_far() { "$python" -c 'import json, sys; print(max((json.loads(l)["step"] for l in open(sys.argv[1])), default=0))' "$run/metrics.jsonl"; }

# one part: `timeout` ends it by SIGTERM, after which it has saved; a budget that is used ends it before
train() {
  status=0
  timeout --signal=TERM --kill-after=45 "$(awk "BEGIN { print 60 * ${PART_MINUTES:-9} }")" \
    "$python" -m musiclm train "$@" || status=$?
  case $status in
    0) echo "done: the budget is used" ;;
    124 | 130 | 143) echo "one part is done: call again to continue" ;;
    *) echo "training failed with exit code $status: '$parts' is as it was" >&2; exit "$status" ;;
  esac
}

mkdir -p "$work"
find_musiclm
rm -rf "$work/corpus" && mkdir -p "$work/corpus"
tar --extract --xz --file "$corpus" --directory "$work/corpus"
if [ -e "$parts/SHA256SUMS" ]; then
  join_parts
  if [ "$dry_run" ]; then train --resume "$run" --steps $(($(steps_so_far) + 2)); else train --resume "$run"; fi
else
  rm -rf "$run"
  if [ "$dry_run" ]; then
    options=(--arch transformer --preset tiny --device cpu --batch-size 2 --window 32 --steps 2)
  else
    options=(--from "${START:-score-transformer}" --device cuda --precision bf16 --batch-size "${BATCH_SIZE:-64}" --dropout 0)
    options+=(--learning-rate "${LEARNING_RATE:-1e-3}" --patience 1000 --minutes "${TOTAL_MINUTES:-90}")
  fi
  # shellcheck disable=SC2086
  train "$work/corpus" "${options[@]}" --seed "${SEED:-21}" ${TRAIN_OPTIONS:-} -o "$run"
fi
split_run
ls -l "$parts"
