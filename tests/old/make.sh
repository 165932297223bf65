#!/usr/bin/env bash
# Made baea3d8.tar.xz: a store, its sweep, a cache and a champion of a commit, which later ones must still read.
#   PYTHON=.venv/bin/python tests/old/make.sh baea3d8
set -euo pipefail
commit=$1 here=$(cd "$(dirname "$0")" && pwd)
python=$(realpath -s "${PYTHON:-$here/../../.venv/bin/python}") package=/tmp/old-package store=/tmp/old-store
rm -rf "$store" && mkdir "$store"
git -C "$here" worktree add --detach "$package" "$commit"
trap 'git -C "$here" worktree remove --force "$package"' EXIT
cp "$here/old.yaml" "$store" && cd "$store"
export LOGNAME=someone USER=someone PYTHONPATH=$package TF_CPP_MIN_LOG_LEVEL=3 KERAS_BACKEND=tensorflow

"$python" - <<'PYTHON'
import keras
import numpy as np
from keras import layers
from PIL import Image

keras.utils.set_random_seed(0)
pixels = keras.Input((16, 16, 3))
x = layers.Conv2D(4, 3, strides=2, padding="same", activation="relu", name="first")(pixels)
keras.Model(pixels, layers.Conv2D(6, 3, strides=2, padding="same", name="second")(x)).save("trunk.keras")
for number in range(3):
    Image.fromarray(np.random.default_rng(number).integers(0, 256, (48, 48), "uint8")).save(f"face{number}.png")
PYTHON

fer() { "$python" -m fer_experiments.cli "$@" paths.mlruns=$store/mlruns paths.cache=$store/cache; }
run() {
	hostname node # in run records
	fer sweep sweep=old.yaml sweep.max_trials=3
	fer promote gate=none promote.top_k=1 promote.seeds=1 promote.resamples=50 tracking.system_metrics=false
	fer predict face0.png face1.png face2.png --json data=demo data.task=demo >predicted.json
}
export -f fer run && export python store
unshare --uts bash -euo pipefail -c run
tar -C "$store" -cJf "$here/$commit.tar.xz" --exclude=plots --exclude=lock --exclude=requirements.lock \
	--owner=0 --group=0 --numeric-owner --sort=name .
