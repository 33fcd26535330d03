#!/usr/bin/env bash
# Every system on every track that it covers, on the demo corpora, one after the other; then the
# table of all. What is finished is skipped, what was interrupted goes on.
#
#   launch/demo.sh                                      all, each into runs/<name of its config>
#   launch/demo.sh RUNS                                 into another folder
#   launch/demo.sh RUNS va:ctyun,demo va:ctyun,demo,without_tcn      these alone
#   launch/demo.sh RUNS expr:ctyun,faces -- --config.corpus.root=DIR        with flags for each run
#
# PYTHON names the interpreter where it is not `python`.
set -euo pipefail
runs=runs
case ${1:-} in
    -- | '') ;;
    -* | *:*)
        echo "error: $1 is no folder for the runs; launch/demo.sh [RUNS [CONFIG...]] [-- FLAGS...]" >&2
        exit 2
        ;;
esac
if (($#)) && [ "$1" != -- ]; then
    runs=$1
    shift
fi
configs=()
while (($#)) && [ "$1" != -- ]; do
    configs+=("$1")
    shift
done
shift $(($# > 0))
[[ $runs = /* ]] || runs=$PWD/$runs
cd "$(dirname "$0")/.."
python=${PYTHON:-python}

# Configs, or none for all -> lines: config, its name, the names of runs that may share its work:
# that of its whole system, then that of the track's first.
plan() {
    "$python" - "$@" << 'END'
import importlib
import sys

from configs import base


TRACKS = next(iter(base.SYSTEMS.values()))


def every():
    for track in TRACKS:
        for system, tracks in base.SYSTEMS.items():
            if track in tracks:
                yield f"{track}:{system},demo"


for given in sys.argv[1:] or every():
    track, _, argument = given.partition(":")
    if track not in TRACKS:
        sys.exit(f"error: {given}: {track!r} is no track; name configs as va:ctyun,demo")
    module = importlib.import_module(f"configs.{track}")
    try:
        name = module.get_config(argument).name
    except ValueError as error:
        sys.exit(f"error: {error}")
    system, scale = base.parse(argument, track, tuple(module.SCALES))
    others = (module.get_config(f"{system},{scale}").name, module.get_config(scale).name)
    print(f"{track}:{argument}", name, *others)
END
}

# A run that has not begun starts from copies of another's first stages. Those that its config would
# make otherwise are made again, by --redo until it is finished; the others are the same files, so no
# score changes. A run without copies is never made again.
share() {
    local run=$1 stage
    local other=$2
    for stage in prepare pretrain finetune extract; do
        [ -e "$other/$stage/results.json" ] || break
        mkdir -p "$run"
        touch "$run/.shared"
        rm -rf "$run/.$stage.copied"
        cp -R "$other/$stage" "$run/.$stage.copied"
        mv "$run/.$stage.copied" "$run/$stage" # whole, or not there
    done
}

lines=$(plan "${configs[@]}")
folders=()
while read -r config name others; do
    run=$runs/$name
    folders+=("$run")
    for other in $others; do
        [ -e "$run/prepare" ] || share "$run" "$runs/$other"
    done
    echo "== configs/${config/:/.py:}: $run"
    redo=
    [ ! -e "$run/.shared" ] || redo=--redo
    "$python" -m abaw_jax.main --config="configs/${config/:/.py:}" --workdir="$run" \
        ${redo:+"$redo"} "$@" < /dev/null
    rm -f "$run/.shared"
done <<< "$lines"
"$python" -m abaw_jax.table "${folders[@]}"
